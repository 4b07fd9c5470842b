"""Models whose right expert is known, with faults planted in their routers.

A pixel has a mode and a class. Its label is the class moved on by the mode, so that expert e, which moves
every class on by e, is right where the mode is e.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from geomoe.audit.subject import Subject
from geomoe.models.contract import Input, ModelContract, Output
from geomoe.moe import LinearScore, ModuleExperts, MoE, Pixels, Router, TopK
from geomoe.tasks.stream import Named
from tests.audit.made import MadeTask

EXPERTS, CLASSES = 4, 4
NAMES = ("a", "b", "c", "d")
BANDS = 2 * EXPERTS + CLASSES
"""Of mode and sensor, one for each, and of class."""


@dataclass
class PlantedTask(MadeTask):
    """Classes by their logits."""

    family = "planted"

    LOSSES = {"cross_entropy": partial(F.cross_entropy, ignore_index=-1)}  # noqa: RUF012

    def answer(self, prediction):
        return prediction.softmax(1)


def expert(shift: int) -> nn.Module:
    """Logits of the class moved on by ``shift``."""
    layer = nn.Linear(BANDS, CLASSES)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        for k in range(CLASSES):
            layer.weight[(k + shift) % CLASSES, 2 * EXPERTS + k] = 8.0
    return layer


def score(look: str = "mode") -> LinearScore:
    """Logits of each expert: of the pixel's mode, its sensor, or nothing."""
    gate = LinearScore(BANDS, EXPERTS)
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.zero_()
        weight = next(p for p in gate.parameters() if p.dim() == 2)
        first = {"mode": 0, "sensor": EXPERTS}.get(look)
        if first is not None:
            weight[:, first : first + EXPERTS] = 5 * torch.eye(EXPERTS)
    return gate


class Planted(nn.Module):
    """Pixels by a mixture; logits of each pixel, or of the image as their mean."""

    def __init__(self, router, experts, dense):
        super().__init__()
        self.moe, self.dense = MoE(router, ModuleExperts(experts)), dense
        kind = "classes" if dense else "label"
        self.contract = ModelContract({"image": Input(BANDS)}, {kind: Output(kind, CLASSES, classes=NAMES)})

    def forward(self, x, trace=None, valid=None):
        pixels = Pixels.of(x)
        out = pixels.from_rows(self.moe(pixels.to_rows(x), grid=pixels.grid, trace=trace))
        return out if self.dense else out.mean((2, 3))


def planted(router=None, *, experts=None, side=1, dense=False, count=48, seed=0, modes=EXPERTS, noise=0.1):
    """A subject of ``count`` images of ``side`` pixels each way.

    Args:
        router: of the model; one that knows the mode by default.
        experts: of the model; those that move classes on by 0, 1, 2 and 3.
        side: of the images; all pixels of an image have one mode, class and sensor unless ``dense``.
        dense: whether pixels have modes and classes of their own, and masks.
        count: of images.
        seed: of everything.
        modes: that there are.
        noise: on the image.
    """
    rng = torch.Generator().manual_seed(seed)
    shape = (count, side, side) if dense else (count, 1, 1)
    mode = torch.arange(count).view(-1, 1, 1) % modes
    if dense:
        mode = torch.randint(modes, shape, generator=rng)
    sensor = torch.randint(EXPERTS, shape, generator=rng)
    kind = torch.randint(CLASSES, shape, generator=rng)
    parts = [F.one_hot(mode, EXPERTS), F.one_hot(sensor, EXPERTS), F.one_hot(kind, CLASSES)]
    images = torch.cat([part.expand(*shape, -1) for part in parts], 3).permute(0, 3, 1, 2).float()
    images = images.expand(-1, -1, side, side)
    images = images + noise * torch.randn(images.shape, generator=rng)
    label = (kind + mode) % CLASSES
    samples = []
    for i, image in enumerate(images):
        truth = {"mask": label[i]} if dense else {"label": label[i, 0, 0], "mode": mode[i, 0, 0]}
        if not dense:
            truth["sensor"] = sensor[i, 0, 0]
        samples.append((f"{i}.png", {"image": image, **truth}))
    model = Planted(router or Router(score(), TopK(1)), experts or [expert(e) for e in range(EXPERTS)], dense)
    card = SimpleNamespace(task="planted", model="planted", config={}, data={}, recipe={})
    loaded = SimpleNamespace(
        name="planted", model=model.eval(), card=card, contract=model.contract, hash="0", path=None,
        reference=None,
    )  # fmt: skip
    return Subject(loaded, Named("made", samples), seed)
