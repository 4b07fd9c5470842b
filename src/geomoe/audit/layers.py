"""The layers of a trace by name, and their plans sample by sample."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.sort import count_choices

__all__ = ["Tally", "choices_by_sample", "layer_names", "listed", "rows_by_sample"]


_DEAD = 0.01
"""Of an even share of the choices."""


def layer_names(model: nn.Module, trace: RoutingTrace) -> list[str]:
    """A name for each plan of a trace, by the place of its router in the model, such as ``blocks.1.ffn``.

    A layer that ran several times has its number behind its name.
    """
    place = {module: name for name, module in model.named_modules()}
    names = []
    for number, router in enumerate(trace.routers):
        path = (place.get(router, "") if router is not None else "").split(".")
        while path and path[-1] in ("router", "moe"):
            path.pop()
        names.append(".".join(path) or f"layer {number}")
    counts, seen = Counter(names), Counter[str]()
    for i, name in enumerate(names):
        if counts[name] > 1:
            seen[name] += 1
            names[i] = f"{name} ({seen[name]})"
    return names


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and 3 more``."""
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"


def rows_by_sample(plan: RoutingPlan, samples: int) -> Tensor | None:
    """``[samples, rows]`` int64, which rows of a plan are of which sample; None where that cannot be said."""
    if not plan.grid or plan.grid[0] != samples or plan.num_rows % samples:
        return None
    return torch.arange(plan.num_rows, device=plan.experts.device).view(samples, -1)


def choices_by_sample(plan: RoutingPlan, samples: int) -> Tensor | None:
    """``[samples, E]`` float64, how many choices of each sample fell on each expert and were carried out."""
    rows = rows_by_sample(plan, samples)
    if rows is None:
        return None
    carried = torch.ones_like(plan.experts, dtype=torch.float64)
    if plan.kept is not None:
        carried = carried * plan.kept
    if plan.valid is not None:
        carried = carried * plan.valid[:, None]
    found = carried.new_zeros(samples, plan.num_experts)
    return found.scatter_add(1, plan.experts.reshape(samples, -1), carried.reshape(samples, -1))


@dataclass
class Tally:
    """Sums over the plans of one layer.

    Attributes:
        experts: E.
        top_k: choices of a row.
        rows: that were routed.
        choices: ``[E]``, carried out.
        gates: ``[E]``, sums of weights.
        belief: ``[E]``, sums of probabilities.
        row_entropy: sum over rows of the entropy of their probabilities, nats.
        confidence: sum over rows of the largest probability.
        dropped: choices that found their expert full.
        by_sample: ``[samples, E]`` for each batch, the choices of each sample; empty where rows are of no
            samples.
    """

    experts: int
    top_k: int
    rows: int = 0
    choices: Tensor = field(default_factory=lambda: torch.zeros(()))
    gates: Tensor = field(default_factory=lambda: torch.zeros(()))
    belief: Tensor = field(default_factory=lambda: torch.zeros(()))
    row_entropy: float = 0.0
    confidence: float = 0.0
    dropped: int = 0
    by_sample: list[Tensor] = field(default_factory=list)

    def add(self, plan: RoutingPlan, samples: int) -> None:
        """Count the valid rows of one more plan, of so many samples."""
        mine = choices_by_sample(plan, samples)
        if mine is not None:
            self.by_sample.append(mine)
        plan = plan.of_valid()
        p = plan.probabilities.double()
        self.rows += plan.num_rows
        self.choices = self.choices + count_choices(plan).double()
        self.gates = self.gates + plan.gates.double().sum(0)
        self.belief = self.belief + p.sum(0)
        self.row_entropy += float(torch.special.entr(p).sum())
        self.confidence += float(p.amax(1).sum()) if plan.num_rows else 0.0
        self.dropped += 0 if plan.dropped is None else int(plan.dropped.sum())

    @property
    def load(self) -> Tensor:
        """``[E]`` share of the choices."""
        return self.choices / self.choices.sum().clamp_min(1)

    @property
    def importance(self) -> Tensor:
        """``[E]`` share of the gates."""
        return self.gates / self.gates.sum().clamp_min(1e-12)

    @property
    def marginal_entropy(self) -> float:
        """Entropy of the mean belief over ln E: 1 where experts are wanted alike."""
        mean = self.belief / max(self.rows, 1)
        return float(torch.special.entr(mean).sum()) / math.log(max(self.experts, 2))

    @property
    def conditional_entropy(self) -> float:
        """Mean entropy of a row's belief over ln E: 0 where every row is sure."""
        return self.row_entropy / max(self.rows, 1) / math.log(max(self.experts, 2))

    @property
    def dead(self) -> list[int]:
        """Experts with less than a hundredth of an even share of the choices."""
        least = _DEAD * float(self.choices.mean())
        return [e for e, count in enumerate(self.choices.tolist()) if count <= least]
