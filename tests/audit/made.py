"""Models that route by a rule that a test knows, and what an audit has to know of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.audit.subject import Subject
from geomoe.models.contract import Input, ModelContract, Output
from geomoe.moe.plan import RoutingPlan
from geomoe.tasks.stream import Named


def plan_of(experts: Tensor, number: int, grid: tuple[int, ...], sure: float = 0.9) -> RoutingPlan:
    """Each row to one expert, ``experts`` ``[N]``, by a belief of ``sure`` in it."""
    rest = (1 - sure) / max(number - 1, 1)
    p = torch.full((len(experts), number), rest).scatter(1, experts[:, None], sure)
    return RoutingPlan(experts[:, None], torch.ones(len(experts), 1), p, p.log(), (number,), grid)


def cells(values: Tensor, side: int) -> Tensor:
    """Means ``[N]`` of the first band over squares of ``side``."""
    return F.avg_pool2d(values[:, :1], side).flatten()


@dataclass(frozen=True)
class MadeConfig:
    mean: tuple[float, ...] = (0.5,)


class Made(nn.Module):
    """Routes images by ``rule``, which gives plans, and answers by ``says``; neither has weights."""

    def __init__(
        self, rule: Callable[[Tensor], list[RoutingPlan]], says: Callable[[Tensor], Tensor], contract
    ):
        super().__init__()
        self.rule, self.says, self.contract, self.config = rule, says, contract, MadeConfig()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, trace=None, valid=None):
        for plan in self.rule(x):
            if trace is not None:
                trace.record(plan, None, plan.logits)
        return self.says(x)


@dataclass
class MadeTask:
    """Classes of images or pixels; the model gives probabilities."""

    model: Made
    monitor: str = "oa"
    base: str = "nothing"

    @classmethod
    def of(cls, weights):
        return cls(weights.model)

    def eval(self):
        return self

    def predict(self, batch, trace=None):
        return self.model(batch["image"], trace=trace)

    def answer(self, prediction):
        return prediction.float()

    def truth(self, batch):
        return batch["mask"] if "mask" in batch else batch["label"]

    def by_item(self, answer, batch):
        truth = self.truth(batch)
        right = (answer.argmax(1) == truth).float()
        return {"oa": right if right.ndim == 1 else right.sum((1, 2)) / (truth >= 0).sum((1, 2))}

    def sizes(self, batch):
        return (batch["mask"] >= 0).sum((1, 2)) if "mask" in batch else torch.ones(len(batch["image"]))


@dataclass
class MadeCard:
    task: str = "made"
    model: str = "made"
    config: dict = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)
    reference: dict = field(default_factory=dict)


def subject(
    images: Tensor,
    rule: Callable[[Tensor], list[RoutingPlan]],
    labels: Tensor | None = None,
    masks: Tensor | None = None,
    classes: tuple[str, ...] = ("dark", "light"),
    says: Callable[[Tensor], Tensor] | None = None,
    kind: str = "label",
    reference=None,
) -> Subject:
    """Of images ``[N, C, H, W]``; says the class of which the first band's brightness is, unless told."""

    def light(x):
        share = x[:, :1].mean((2, 3)).clamp(0.01, 0.99)
        return torch.cat([1 - share, share], 1)

    contract = ModelContract(
        {"image": Input(images.shape[1])}, {kind: Output(kind, len(classes), classes=classes)}
    )
    model = Made(rule, says or light, contract).eval()
    samples = []
    for i, image in enumerate(images):
        sample = {"image": image}
        if masks is not None:
            sample["mask"] = masks[i]
        else:
            sample["label"] = torch.tensor(0) if labels is None else labels[i]
        samples.append((f"{i}", sample))
    loaded = SimpleNamespace(
        name="made", model=model, card=MadeCard(), contract=contract, path=None, hash="0", reference=reference
    )
    return Subject(loaded, Named("made", samples))


def codes(section) -> dict[str, str]:
    """Findings of a section: level by code."""
    return {finding.code: finding.level for finding in section.findings}


def check_drawn(section) -> None:
    """Every figure draws, names are unique, and what is said is JSON."""
    import json

    from matplotlib.figure import Figure

    json.dumps(section.data, allow_nan=False)
    for parts in (section.tables, section.figures):
        assert len({part.name for part in parts}) == len(parts)
    for table in section.tables:
        assert all(len(row) == len(table.columns) for row in table.rows), table.name
    for figure in section.figures:
        drawing = Figure()
        figure.draw(drawing)
        drawing.canvas.draw()
        assert drawing.axes, figure.name
