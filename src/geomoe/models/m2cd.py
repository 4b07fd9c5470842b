"""M2CD: what changed between an optical and a radar image, by experts that both dates share.

Liu, Zhang, Wang and Gu, "M2CD: A Unified MultiModal Framework for Optical-SAR Change Detection with Mixture
of Experts and Self-Distillation", IEEE GRSL 2025, arXiv 2503.19406. One trunk sees each date by itself. After
each of its stages every cell goes through the two feed-forward experts, of four, whose embeddings are the
most alike to it; the mixture takes the place of the map. A head of 1x1 convolutions sees the maps of both
dates, stage by stage. In training there is a third path: the optical image as a radar would measure it, which
is speckled, and which the features of both dates are drawn to.

As the released program has it (circleLZY/M2CD, Apache-2.0): experts, gate, head, losses, weights, and that
the third path comes in when the rest has been trained (``stages``). Other than there, where it does something
else than it says: a draw has L looks and so a variance of 1 / L, each image its own; what is speckled is the
image and not what normalisation left of it; nothing is simulated in evaluation; the simulated features are a
teacher, which gets no gradient of the guidance; a stage without experts is not guided.

Assumed: what follows a stage sees its mixture; norms of single pixels (:mod:`geomoe.layers.resnet`) and a
random start; Adam, without decay of weights; of a date with one band three that are alike. Left out: a head
that learns ten times as fast as the trunk, a rate that falls in a line, and dates exchanged by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.norms import ChannelNorm
from geomoe.layers.resnet import ResidualStage, Stem, trunk_reach
from geomoe.layers.sensors import sensor_slices
from geomoe.layers.speckle import draw_looks, speckle
from geomoe.layers.windows import crop_to
from geomoe.models.contract import ModelContract
from geomoe.models.registry import register
from geomoe.models.siamese import Date, PairConfig, Siamese, coarser
from geomoe.models.sparse_ffn import sparse_ffn
from geomoe.models.stages import Stage
from geomoe.models.twin import Twin
from geomoe.moe import CosineScore, FeedForwardExperts, MoE, Noise, Router, TopK
from geomoe.moe.plan import RoutingTrace

__all__ = ["M2CD", "M2CDConfig", "guidance"]

_TILE = 512
"""Side of a tile's core, pixels: a pixel sees far, so that small tiles would be mostly margin."""


@dataclass(frozen=True)
class M2CDConfig(PairConfig):
    """Everything that makes a :class:`M2CD`; the defaults are its ResNet-18.

    Attributes:
        widths: of the stages.
        blocks: of each stage.
        head: width of the head.
        experts: after each stage.
        top_k: of them for each cell.
        ratio: hidden width of an expert over that of its stage.
        mixed: the stages that experts follow, from 1.
        optical: of which date a radar image is simulated in training; ``none`` where both are radar images.
        looks: of the simulated radar, one of which is drawn for each image.
        twin: what replaces the experts; see :data:`geomoe.models.twin.Twin`.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 2
    head: int = 256
    experts: int = 4
    top_k: int = 2
    ratio: int = 4
    mixed: tuple[int, ...] = (1, 2, 3, 4)
    optical: Literal["first", "second", "none"] = "first"
    looks: tuple[int, ...] = (1, 2, 4, 8, 16)
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.top_k <= self.experts:
            raise ValueError(f"top_k={self.top_k}: expected 2 to experts={self.experts}")
        if max(self.mixed) > len(self.widths):
            raise ValueError(f"mixed={self.mixed}: expected stages from 1 to {len(self.widths)}")
        if self.twin == "gated":
            raise ValueError(
                "twin='gated': the gates of a cell add up to 1, so that it would be dense; choose active"
            )

    @property
    def cells(self) -> int:
        """Side of a cell of the last stage, pixels."""
        return int(2 ** (len(self.widths) + 1))

    @property
    def reach(self) -> int:
        """Pixels that one pixel of the result sees at most, where tiles start on whole cells."""
        # Interpolation looks at the next cell, of the last stage and of the half grid; tiles start on cells.
        return trunk_reach([self.blocks] * len(self.widths)) + self.cells + 2 + self.cells - 1


class Head(nn.Module):
    """Maps of all stages, both dates side by side, to logits on the grid of twice the pixel's side."""

    def __init__(self, c: M2CDConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * width, c.head, 1), ChannelNorm(c.head), nn.ReLU())
            for width in c.widths
        )
        # The parts of one convolution of all stages: before maps are resized it costs less and is the same.
        self.joins = nn.ModuleList(nn.Conv2d(c.head, c.head, 1, bias=False) for _ in c.widths)
        self.norm = ChannelNorm(c.head)
        self.out = nn.Conv2d(c.head, len(c.classes), 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """``[B, K, 2 H, 2 W]`` of maps, of which the first is ``[B, 2 C, H, W]``."""
        size = [2 * side for side in maps[0].shape[2:]]
        joined = torch.stack(
            [
                F.interpolate(join(stage(y)), size, mode="bilinear", align_corners=False)
                for stage, join, y in zip(self.stages, self.joins, maps, strict=True)
            ]
        ).sum(0)
        out: Tensor = self.out(F.relu(self.norm(joined)))
        return out


def guidance(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Distance of both dates' features to those of the simulated radar: L1, both added up, and all stages.

    The simulated features teach: no gradient goes there. 0 where nothing was simulated.

    Args:
        answers: of :meth:`M2CD.answers`.
        truth: is not looked at.
    """
    prediction = next(iter(answers.values()))
    terms = [
        F.l1_loss(answers[f"{date} {stage}"], teacher.detach())
        for name, teacher in answers.items()
        for path, _, stage in [name.partition(" ")]
        for date in ("first", "second")
        if path == "simulated"
    ]
    return torch.stack(terms).sum() if terms else 0 * prediction.sum()


class M2CD(Siamese):
    """Says of every pixel whether it changed between two dates, whichever sensors saw them.

    Example:
        >>> import torch
        >>> from geomoe.models.m2cd import M2CD, M2CDConfig
        >>> sensors = {"before": 1, "after": 3}
        >>> config = M2CDConfig(bands=4, sensors=sensors, widths=(8, 12), mixed=(1, 2), head=8)
        >>> M2CD(config).eval()(torch.rand(1, 4, 20, 9)).shape
        torch.Size([1, 2, 20, 9])
    """

    objectives: ClassVar[Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]] = {
        "guidance": guidance
    }
    """Losses of its own, of what :meth:`answers` gives and the truth."""
    guided: Tensor

    def __init__(self, config: M2CDConfig) -> None:
        super().__init__(config, config.cells)
        c = self.config = config
        self.stem = Stem(c.channels, c.widths[0])
        self.blocks = nn.ModuleList(
            ResidualStage(c.widths[max(number - 1, 0)], width, c.blocks, 2 if number else 1)
            for number, width in enumerate(c.widths)
        )
        self.mixtures = nn.ModuleDict(
            {
                str(stage): sparse_ffn(lambda width=width: _mixture(c, width), c.twin, width)  # type: ignore[misc]
                for stage, width in enumerate(c.widths, 1)
                if stage in c.mixed
            }
        )
        self.head = Head(c)
        self.register_buffer("guided", torch.tensor(True))

    @property
    def contract(self) -> ModelContract:
        return self._contract(self.config.reach, _TILE)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Without the simulated radar, then with it; none where there is nothing to simulate it from."""
        return () if self.config.optical == "none" else (Stage("experts", 2), Stage("guided", 1))

    def begin(self, stage: str, batches: object = None) -> None:
        """A stage of the training begins."""
        self.guided.fill_(stage != "experts")

    def features(self, date: Date, trace: RoutingTrace | None = None) -> list[Tensor]:
        """The map of every stage of one date, each half as large as the one before."""
        y, found = self.stem(date.image), []
        for stage, block in enumerate(self.blocks, 1):
            y = block(y)
            if str(stage) in self.mixtures:
                there = coarser(date.there, 2 ** (stage + 1))
                y = self.mixtures[str(stage)](y.permute(0, 2, 3, 1), trace, there).permute(0, 3, 1, 2)
            found.append(y)
        return found

    def _simulated(self, x: Tensor, valid: Tensor | None, present: Tensor | None) -> Date:
        """The optical date as a radar would measure it."""
        place = ("first", "second").index(self.config.optical)
        looks = draw_looks(len(x), self.config.looks, x.device)
        bands = list(sensor_slices(self.config.sensors).values())[place]
        seen = x.clone()
        seen[:, bands] = speckle(x[:, bands], looks)
        return self.dates(seen, valid, present)[place]

    def answers(
        self,
        x: Tensor,
        trace: RoutingTrace | None = None,
        valid: Tensor | None = None,
        present: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits, and the features that the guidance compares; arguments as of :meth:`forward`.

        Of each stage that experts follow ``first N``, ``second N`` and, in training, ``simulated N``.
        """
        paths = dict(zip(("first", "second"), self.dates(x, valid, present), strict=True))
        if self.training and self.config.optical != "none" and self.guided:
            paths["simulated"] = self._simulated(x, valid, present)
        maps = {name: self.features(date, trace) for name, date in paths.items()}
        said = self.head([torch.cat(both, 1) for both in zip(maps["first"], maps["second"], strict=True)])
        whole = F.interpolate(said, scale_factor=2.0, mode="bilinear", align_corners=False)
        compared = {f"{name} {n}": found[n - 1] for name, found in maps.items() for n in self.config.mixed}
        return {"classes": crop_to(whole, x), **compared}

    def forward(
        self,
        x: Tensor,
        trace: RoutingTrace | None = None,
        valid: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Logits.

        Args:
            x: ``[B, bands, H, W]``, both dates stacked, of any size; intensities in any unit from 0.
            trace: if given, the plans of the first date are appended to it, a row a cell, then those of the
                second, and of the simulated one in training.
            valid: ``[B, H, W]`` bool, the pixels that there are; others are seen as the mean of their band,
                and are routed only where a cell holds one that there is.
            present: ``[B, 2, H, W]`` bool, the pixels that each date has; likewise.

        Returns:
            ``[B, classes, H, W]``; of pixels that are not there too, which mean nothing.
        """
        return self.answers(x, trace, valid, present)["classes"]


def _mixture(c: M2CDConfig, width: int) -> MoE:
    score = CosineScore(width, c.experts, min(max(width // 2, 1), 256), bias=True)
    router = Router(score, TopK(c.top_k, "normalised"), noise=Noise(width, c.experts, least=0.01))
    return MoE(router, FeedForwardExperts(width, c.ratio * width, c.experts))


register("m2cd", M2CD, M2CDConfig, gives="classes")
