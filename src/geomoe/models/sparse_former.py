"""SparseFormer: two convolutional experts, of whom the credible one teaches a transformer, from point labels.

Chen, Cui, Zhang, Li, Xie, Li, Li, "SparseFormer: A Credible Dual-CNN Expert-Guided Transformer for Remote
Sensing Image Segmentation With Sparse Point Annotation", IEEE TGRS 63, 2025. An encoder is shared by two
decoders of DeepLab v3+, the experts, one with coordinate attention and one with CBAM, and by a branch with
window attention, which alone answers. All learn from points first, and the experts from each other. Then the
branch learns from labels of all pixels: at each that of the expert whose two largest probabilities, after
refinement by the image, have the smaller entropy; none where both experts are below a half.

From the paper: the experts and their attentions, the refinement and the rule, both stages and all losses with
their weights, the fusion of tokens and convolutions by gates, the gated way up. Other than in the released
program: divergences are over the K classes of each pixel, whatever K; coordinate attention is that; Dice is
of probabilities; no loss counts pixels without a label; of experts that are as sure the first is taken; the
branch learns from the points too; norms are of single pixels. Assumed: an encoder of residual convolutions,
whose coarsest features the tokens are made of, in the place of an EfficientNet and a Swin transformer with
pretrained weights; one fusion, at that size; plain in the place of deformable convolutions there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.affinity import refine
from geomoe.layers.convolution import conv3x3
from geomoe.layers.gates import CBAM, CoordinateAttention
from geomoe.layers.hybrid import CosineBlock
from geomoe.layers.norms import ChannelNorm
from geomoe.layers.pixel_losses import cross_entropy, dice, divergence, smoothed
from geomoe.layers.scales import AtrousPyramid, Encoder, GatedUp, TokenFusion
from geomoe.layers.windows import crop_to, pad_to_multiple
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.label import Normalise
from geomoe.models.options import MapConfig, check_divides
from geomoe.models.registry import register
from geomoe.models.stages import Stage
from geomoe.models.twin import Twin
from geomoe.moe import ModuleExperts, OutputGatedMoE, TopK
from geomoe.moe.plan import RoutingTrace

__all__ = ["SparseFormer", "SparseFormerConfig", "doubt", "merged_labels"]

_TILE = 256
"""Side of a tile's core, pixels, at the least."""
_LEAST = 0.5
"""Largest probability that one of the experts has at the least where a label is taken."""
_TEMPERATURE, _GUIDED = 10.0, 0.3


@dataclass(frozen=True)
class SparseFormerConfig(MapConfig):
    """Everything that makes a :class:`SparseFormer`.

    Attributes:
        stem: pixels to a side of the cells that the finest features are of.
        widths: channels of the encoder, its grid halved from one to the next; two or more.
        blocks: of each size.
        rates: dilations that the decoders see the coarsest features with.
        decoder: channels of the decoders.
        width: of the tokens.
        depth: layers of attention.
        heads: of attention; divide ``width``.
        window: side of an attention window, tokens, even.
        dilations: distances of the neighbours of refinement, pixels.
        rounds: of refinement.
        choice: by what an expert is chosen: its credibility, or chance, as a control.
        twin: ``active``, the branch without experts, on points alone: all that answers, so of equal cost.
    """

    stem: int = 4
    widths: tuple[int, ...] = (32, 48, 136, 232)
    blocks: int = 2
    rates: tuple[int, ...] = (1, 6, 12, 18)
    decoder: int = 256
    width: int = 384
    depth: int = 6
    heads: int = 12
    window: int = 8
    dilations: tuple[int, ...] = (1, 4, 8, 12, 24)
    rounds: int = 10
    choice: Literal["credibility", "chance"] = "credibility"
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "width", self.width)
        if len(self.widths) < 2:
            raise ValueError(f"widths={self.widths!r}: expected two or more")
        if self.window % 2:
            raise ValueError(f"window={self.window}: expected an even number")
        if self.twin not in ("none", "active"):
            raise ValueError(
                f"twin={self.twin!r}: its experts teach, and answer nothing; choose active, the branch "
                "without them, or choice='chance'"
            )

    @property
    def cells(self) -> int:
        """Pixels to a side of a window of the coarsest features."""
        return self.stem * int(2 ** (len(self.widths) - 1)) * self.window


def doubt(said: Tensor) -> Tensor:
    """``-(p1 ln p1 + p2 ln p2)``, ``[...]``, of the largest two probabilities of logits ``[..., K]``."""
    unsure: Tensor = torch.special.entr(said.softmax(-1).topk(2, -1).values).sum(-1)
    return unsure


def credible(said: Tensor) -> Tensor:
    """Logits of the gate ``[N, E]``, of what experts say, ``[N, E, K]``."""
    return -doubt(said)


def by_chance(said: Tensor) -> Tensor:
    """The same, without looking."""
    return torch.rand(said.shape[:2], device=said.device)


def merged_labels(said: Tensor, gates: Tensor) -> Tensor:
    """``[N]`` int64, the class of the expert that ``gates`` ``[N, E]`` chose; -1 where it chose none.

    Args:
        said: logits of the experts ``[N, E, K]``.
        gates: 1 of the chosen one.
    """
    chosen = gates > 0
    return torch.where(chosen.any(1), (said.argmax(-1) * chosen).sum(1), -1)


def from_points(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Cross-entropy of the experts on the pixels with a class, their mean."""
    return torch.stack([cross_entropy(said, truth) for said in answers["experts"].unbind(1)]).mean()


def from_each_other(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Agreement of the experts with what both say, their mean."""
    experts = answers["experts"]
    both = experts.mean(1)
    return torch.stack(
        [divergence(said, both, answers["there"], _TEMPERATURE) for said in experts.unbind(1)]
    ).mean()


def from_the_others(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Agreement of each expert with what the other one and the branch say, their mean."""
    experts, branch, there = answers["experts"].unbind(1), answers["classes"], answers["there"]
    others = [(other + branch) / 2 for other in reversed(experts)]
    both = zip(experts, others, strict=True)
    return torch.stack([divergence(said, other, there, _TEMPERATURE) for said, other in both]).mean()


def from_labels(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Smoothed cross-entropy and Dice of the branch on the labels of the credible experts, and on points."""
    labels = torch.where(truth >= 0, truth, answers["labels"])
    return smoothed(answers["classes"], labels) + dice(answers["classes"], labels)


def expert(c: SparseFormerConfig, attention: Callable[[int], nn.Module]) -> nn.Module:
    """A decoder of DeepLab v3+, from finer and coarser features side by side to logits."""
    channels, width = c.decoder + c.widths[1], c.decoder
    return nn.Sequential(
        attention(channels), conv3x3(channels, width), ChannelNorm(width), attention(width), nn.ReLU(),
        nn.Dropout(0.5), conv3x3(width, width), nn.ReLU(), nn.Dropout(0.1),
        nn.Conv2d(width, len(c.classes), 1),
    )  # fmt: skip


class SparseFormer(nn.Module):
    """Says of every pixel what it shows, and learns it from single pixels.

    Example:
        >>> import torch
        >>> from geomoe.models.sparse_former import SparseFormer, SparseFormerConfig
        >>> config = SparseFormerConfig(classes=("field", "water"), widths=(8, 8), width=24, depth=1)
        >>> SparseFormer(config)(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 2, 9, 7])
    """

    objectives: ClassVar[Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]] = {
        "experts": from_points,
        "agreement": from_each_other,
        "guidance": from_the_others,
        "labels": from_labels,
    }
    """Losses of its own, of what :meth:`answers` gives and the truth."""

    def __init__(self, config: SparseFormerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.normalise = Normalise(c)
        self.encoder = Encoder(c.bands, c.widths, c.blocks, c.stem)
        deepest = c.widths[-1]
        self.embed = nn.Conv2d(deepest, c.width, 1)
        self.blocks = nn.ModuleList(
            CosineBlock(c.width, c.heads, c.window, n % 2 * c.window // 2) for n in range(c.depth)
        )
        self.fusion = TokenFusion(c.width, deepest)
        self.decoder = nn.ModuleList(GatedUp(a, b) for a, b in pairwise(reversed(c.widths)))
        self.head = nn.Conv2d(c.widths[0], len(c.classes), 1)
        if c.twin == "active":
            return
        self.pyramid = AtrousPyramid(deepest, c.decoder, c.rates)
        experts = ModuleExperts([expert(c, kind) for kind in (CoordinateAttention, CBAM)])
        score = credible if c.choice == "credibility" else by_chance
        self.experts = OutputGatedMoE(experts, score, TopK(1, "hard"))

    @property
    def contract(self) -> ModelContract:
        c = self.config
        tile = -(-_TILE // c.cells) * c.cells
        output = Output("classes", len(c.classes), classes=c.classes, colours=c.colours)
        tiling = Tiling(multiple=c.cells, tile=tile, margin=c.cells, reach=None)
        return ModelContract({"image": Input(c.bands)}, {"classes": output}, tiling)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """From points, and the experts from each other; then the branch from them."""
        if self.config.twin == "active":
            return ()
        points = {"cross_entropy": 1 / 3, "experts": 2 / 3, "agreement": _GUIDED}
        labels = {"labels": 1 / 3, "experts": 2 / 3, "guidance": _GUIDED}
        return Stage("points", 1, losses=points), Stage("labels", 3, losses=labels)

    def _features(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The image, filled up to whole windows, and the encoder's features of it."""
        y = self.normalise(x)
        y = y if valid is None else y.masked_fill(~valid[:, None], 0)
        y = pad_to_multiple(y, self.config.cells)
        return y, self.encoder(y)

    def _branch(self, features: list[Tensor], x: Tensor) -> Tensor:
        """Logits of the branch, of the size of ``x``."""
        tokens = self.embed(features[-1]).permute(0, 2, 3, 1)
        for block in self.blocks:
            tokens = block(tokens)
        y = self.fusion(tokens.permute(0, 3, 1, 2), features[-1])
        for up, finer in zip(self.decoder, reversed(features[:-1]), strict=True):
            y = up(y, finer)
        return _whole(self.head(y), self.config.stem, x)

    def _experts(self, features: list[Tensor], x: Tensor) -> Tensor:
        """``[B, E, K, H, W]``, logits of the experts."""
        around = F.interpolate(self.pyramid(features[-1]), features[1].shape[2:], mode="bilinear")
        said = self.experts.results(torch.cat([around, features[1]], 1))
        return _whole(said.flatten(0, 1), 2 * self.config.stem, x).view(*said.shape[:3], *x.shape[2:])

    @torch.no_grad()
    def labels(self, said: Tensor, image: Tensor, there: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """``[B, H, W]`` int64, what the credible expert says; -1 where neither is, or nothing is there.

        Args:
            said: logits of the experts ``[B, E, K, H, W]``.
            image: ``[B, C, H, W]``, by which they are refined.
            there: ``[B, H, W]`` bool.
            trace: if given, the plan is appended to it; a row is a pixel.
        """
        refined = refine(said.flatten(1, 2), image, self.config.dilations, self.config.rounds)
        rows = refined.unflatten(1, said.shape[1:3]).permute(0, 3, 4, 1, 2).flatten(0, 2)  # [N, E, K]
        sure = (rows.softmax(-1).amax((1, 2)) >= _LEAST) & there.flatten()
        gates = self.experts.weights(rows, grid=tuple(there.shape), valid=sure, trace=trace)
        return merged_labels(rows, gates).view(there.shape)

    def answers(
        self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What the losses ask for; arguments as of :meth:`forward`.

        ``classes`` are logits of the branch ``[B, K, H, W]``, ``experts`` of the experts ``[B, E, K, H, W]``,
        ``labels`` what these teach ``[B, H, W]``, ``there`` the pixels that there are. ``trace`` is given the
        plan of the labels.
        """
        image, features = self._features(x, valid)
        there = torch.ones_like(x[:, 0], dtype=torch.bool) if valid is None else valid
        said = self._experts(features, x)
        labels = self.labels(said, crop_to(image, x), there, trace)
        return {"classes": self._branch(features, x), "experts": said, "labels": labels, "there": there}

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """Logits ``[B, classes, H, W]`` of the branch, which needs no expert.

        Args:
            x: ``[B, bands, H, W]``, of any size.
            trace: stays as it is.
            valid: ``[B, H, W]`` bool, the pixels that there are.
        """
        return self._branch(self._features(x, valid)[1], x)


def _whole(logits: Tensor, times: int, x: Tensor) -> Tensor:
    size = [side * times for side in logits.shape[2:]]
    return crop_to(F.interpolate(logits, size, mode="bilinear"), x)


register("sparse_former", SparseFormer, SparseFormerConfig, gives="classes")
