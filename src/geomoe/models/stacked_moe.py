"""Stacked experts for aerial scenes: each stage refines what the last one saw and said.

Xie et al., stacked mixture of experts for fast aerial scene classification, as the survey describes it (its
reference 145); paper and program could not be had. From there: subnetworks that are stacked, later ones
refining representation and prediction of earlier ones, features used again, more capacity in deeper layers, a
trade of accuracy against cost. Assumed: everything in numbers. Three stages of 2, 4 and 8 residual
bottlenecks, of which a gate on mean and spread of the features takes one for each image, times its
probability; logits that are those of the stage before and a head's on top; a loss for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.layers.norms import ChannelNorm
from geomoe.models.contract import ModelContract
from geomoe.models.label import Normalise, label_contract
from geomoe.models.options import ClassConfig
from geomoe.models.registry import register
from geomoe.models.sample_moe import SampleMoE
from geomoe.models.twin import Twin
from geomoe.moe import LinearScore, Router, TopK
from geomoe.moe.plan import RoutingTrace

__all__ = ["StackedMoE", "StackedMoEConfig", "early_answers"]


@dataclass(frozen=True)
class StackedMoEConfig(ClassConfig):
    """Everything that makes a :class:`StackedMoE`.

    Attributes:
        widths: channels of each stage; the grid is halved before each but the first.
        experts: of each stage.
        answer: the stage whose answer is given, from 1; 0 for the last. What comes after it is not run.
        twin: what replaces the mixtures; see :data:`geomoe.models.twin.Twin`.
    """

    widths: tuple[int, ...] = (32, 64, 128)
    experts: tuple[int, ...] = (2, 4, 8)
    answer: int | Literal[0] = 0
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.experts) != len(self.widths):
            raise ValueError(f"experts={self.experts!r}: expected as many as widths={self.widths!r}")
        if not 0 <= self.answer <= len(self.widths):
            raise ValueError(f"answer={self.answer}: expected a stage from 1 to {len(self.widths)}, or 0")


def _bottleneck(channels: int, width: int, stride: int) -> nn.Module:
    inside = max(width // 2, 1)
    return nn.Sequential(
        nn.Conv2d(channels, inside, 1), nn.GELU(), conv3x3(inside, inside, stride), nn.GELU(),
        nn.Conv2d(inside, width, 1),
    )  # fmt: skip


class Stage(nn.Module):
    """``block(f) + sum_e g_e E_e(f)``, and what is said of it."""

    def __init__(self, c: StackedMoEConfig, number: int) -> None:
        super().__init__()
        width, stride = c.widths[number], 2 if number else 1
        channels = c.widths[max(number - 1, 0)]
        self.block = nn.Sequential(
            conv3x3(channels, width, stride), ChannelNorm(width), nn.GELU(), conv3x3(width, width)
        )
        router = Router(LinearScore(2 * channels, c.experts[number]), TopK(1, "soft"))
        experts = [_bottleneck(channels, width, stride) for _ in range(c.experts[number])]
        self.mixture = SampleMoE(router, experts, c.twin)
        self.norm = ChannelNorm(width)
        self.head = nn.Linear(width, len(c.classes)) if c.classes else nn.Identity()

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> tuple[Tensor, Tensor]:
        """Features, and logits of this stage alone."""
        y = F.gelu(self.norm(self.block(x) + self.mixture(x, trace)))
        return y, self.head(y.mean((2, 3)))


def early_answers(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Cross-entropy of all answers but the last stage's, added up.

    Args:
        answers: logits ``[B, K]`` by stage, the last stage's first.
        truth: ``[B]`` int64.
    """
    _, *early = answers.values()
    return torch.stack([F.cross_entropy(logits, truth) for logits in early]).sum()


class StackedMoE(nn.Module):
    """Says what a whole image shows, and says it at every stage.

    Example:
        >>> import torch
        >>> from geomoe.models.stacked_moe import StackedMoE, StackedMoEConfig
        >>> model = StackedMoE(StackedMoEConfig(classes=("forest", "river"), widths=(8, 8), experts=(2, 3)))
        >>> model(torch.rand(1, 3, 12, 10)).shape
        torch.Size([1, 2])
    """

    objectives: ClassVar[Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]] = {
        "early_answers": early_answers
    }
    """Losses of its own, of what :meth:`answers` gives and the truth."""

    def __init__(self, config: StackedMoEConfig) -> None:
        super().__init__()
        c = self.config = config
        self.normalise = Normalise(c)
        self.stem = nn.Sequential(conv3x3(c.bands, c.widths[0], 2), ChannelNorm(c.widths[0]), nn.GELU())
        self.blocks = nn.ModuleList(Stage(c, number) for number in range(len(c.widths)))

    @property
    def contract(self) -> ModelContract:
        return label_contract(self.config, self.config.widths[(self.config.answer or 0) - 1])

    def answers(self, x: Tensor, trace: RoutingTrace | None = None) -> dict[str, Tensor]:
        """Logits ``[B, classes]`` of every stage up to the one that answers, which is the first.

        Args:
            x: ``[B, bands, H, W]`` in about [0, 1], of any size.
            trace: if given, the plan of every stage is appended to it; a row is an image.
        """
        y, said = self.stem(self.normalise(x)), None
        found: dict[str, Tensor] = {}
        last = self.config.answer or len(self.blocks)
        for number, stage in enumerate(list(self.blocks)[:last], 1):
            y, more = stage(y, trace)
            # Features, where there are no classes, are those of the stage; logits are refined.
            said = more if said is None or not self.config.classes else said + more
            found[f"stage {number}"] = said
        return dict(reversed(found.items()))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Logits ``[B, classes]`` of the stage that answers, or features of a network without classes."""
        return next(iter(self.answers(x, trace).values()))


register("stacked_moe", StackedMoE, StackedMoEConfig, gives="label")
