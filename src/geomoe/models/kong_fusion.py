"""Kong's network: spectra and height of a patch, joined by experts that are ways of joining.

Kong, Yu, Cheng, Chen, Wang, "Joint Classification of Hyperspectral Images and LiDAR Data Based on Candidate
Pseudo Labels Pruning and Dual Mixture of Experts", IEEE TGRS 2025, doi 10.1109/TGRS.2025.3543498; there is no
program, and only the abstract and the survey's description are known. From there: mixtures of bands in
several heads before the features of the first sensor; then a mixture of fusion strategies, chosen by a gate
and balanced by entropy; pseudo labels that are sets of candidates, pruned within and between samples.

Assumed: everything in numbers. Four heads of 32 mixtures of bands, whose weights are a softmax over the
bands, each head's sharper at the start than the one before; two 3x3 convolutions a sensor to 64 channels;
five ways of joining, of which the gate takes three by the means of both. The entropy is
:func:`geomoe.moe.even_entropy_loss` of the plans. Candidates of a pixel without a label are the classes that
are likelier than by chance in two noisy views of its patch and have the same rank in both, and that most of
its five nearest neighbours in the batch have, too; the loss is ``-log`` of what is said of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.layers.norms import ChannelNorm
from geomoe.layers.sensors import by_band, presence
from geomoe.models.options import check_divides
from geomoe.models.patch_map import SensorPatchConfig, SensorPatchMap, patches_at
from geomoe.models.registry import register
from geomoe.models.twin import Twin, twin_of
from geomoe.moe import LinearScore, ModuleExperts, MoE, Router, TopK
from geomoe.moe.objectives.balance import mean
from geomoe.moe.plan import RoutingTrace

__all__ = ["FUSIONS", "BandMixture", "KongFusion", "KongFusionConfig", "candidate_sets", "candidates"]

_NEIGHBOURS = 5
_NOISE = 0.1
"""Of a view of a patch, in standard deviations of a band."""


@dataclass(frozen=True)
class KongFusionConfig(SensorPatchConfig):
    """Everything that makes a :class:`KongFusion`. The defaults are the published size as assumed.

    Attributes:
        band_heads: groups of mixtures of bands.
        mixed: mixtures of bands of each.
        width: channels of the features of both sensors.
        heads: of cross-attention; divide ``width``.
        top_k: ways of joining for each patch, of five.
        unlabelled: pixels of a batch, at most, that candidates are looked for while training.
        twin: what replaces the mixture of ways; see :data:`geomoe.models.twin.Twin`.
    """

    patch: int = 11
    band_heads: int = 4
    mixed: int = 32
    width: int = 64
    heads: int = 4
    top_k: int = 3
    unlabelled: int = 64
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "width", self.width)
        if not 2 <= self.top_k <= len(FUSIONS):
            raise ValueError(f"top_k={self.top_k}: expected 2 to {len(FUSIONS)}")
        if len(self.sensors) != 2:
            raise ValueError(f"sensors={dict(self.sensors)!r}: expected two")


class BandMixture(nn.Module):
    """``[n, bands, H, W]`` to ``[n, heads * mixed, H, W]``, means of the bands by weights of their own."""

    def __init__(self, bands: int, heads: int, mixed: int) -> None:
        super().__init__()
        sharpness = 2.0 ** torch.arange(heads).repeat_interleave(mixed)
        self.logits = nn.Parameter(torch.randn(heads * mixed, bands) * sharpness[:, None])

    @property
    def weight(self) -> Tensor:
        """``[heads * mixed, bands]``, 0 and more, every row with sum 1."""
        return self.logits.softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, :, None, None])


class Sum(nn.Module):
    """``h + l`` of pairs ``[n, 2, C, H, W]``, as all ways of joining take them, to ``[n, C, H, W]``."""

    def forward(self, pair: Tensor) -> Tensor:
        return pair.sum(1)


class Concatenation(nn.Module):
    """``W [h, l]``, pixel by pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(2 * width, width, 1)

    def forward(self, pair: Tensor) -> Tensor:
        out: Tensor = self.join(pair.flatten(1, 2))
        return out


class Product(nn.Module):
    """``h * l``."""

    def forward(self, pair: Tensor) -> Tensor:
        return pair[:, 0] * pair[:, 1]


class CrossAttention(nn.Module):
    """Every pixel of ``h`` asks all of ``l``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, pair: Tensor) -> Tensor:
        asking, asked = pair.flatten(3).transpose(2, 3).unbind(1)  # [n, H * W, C] each
        told, _ = self.attention(asking, asked, asked, need_weights=False)
        return told.transpose(1, 2).unflatten(2, pair.shape[3:])  # type: ignore[no-any-return]


class Gated(nn.Module):
    """``s h + (1 - s) l``, ``s`` a sigmoid of both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.share = nn.Conv2d(2 * width, width, 1)

    def forward(self, pair: Tensor) -> Tensor:
        share = self.share(pair.flatten(1, 2)).sigmoid()
        out: Tensor = share * pair[:, 0] + (1 - share) * pair[:, 1]
        return out


FUSIONS: dict[str, Callable[[KongFusionConfig], nn.Module]] = {
    "sum": lambda c: Sum(),
    "concatenation": lambda c: Concatenation(c.width),
    "product": lambda c: Product(),
    "attention": lambda c: CrossAttention(c.width, c.heads),
    "gated": lambda c: Gated(c.width),
}
"""The ways of joining, in the order of the experts."""


def _features(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(channels, width), ChannelNorm(width), nn.GELU(),
        conv3x3(width, width), ChannelNorm(width), nn.GELU(),
    )  # fmt: skip


def _whole(there: Tensor, side: int) -> Tensor:
    """``there`` ``[B, H, W]`` where patches do not end with the image, if it is as large as one at all."""
    rows, columns = (side // 2 if size >= side else 0 for size in there.shape[1:])
    inside = torch.zeros_like(there)
    inside[:, rows : there.shape[1] - rows, columns : there.shape[2] - columns] = True
    return there & inside


def candidate_sets(one: Tensor, other: Tensor, features: Tensor) -> Tensor:
    """Classes that a sample may be of, ``[n, K]`` bool; all of them where none is left.

    Args:
        one: probabilities ``[n, K]`` of one view of n samples.
        other: of another one.
        features: ``[n, D]``, by which samples are near each other.
    """
    number, classes = one.shape
    ranks = [view.argsort(1, descending=True).argsort(1) for view in (one, other)]
    kept = (one > 1 / classes) & (other > 1 / classes) & (ranks[0] == ranks[1])
    neighbours = min(_NEIGHBOURS, number - 1)
    if neighbours > 0:
        apart = torch.cdist(features, features).fill_diagonal_(torch.inf)
        nearest = apart.topk(neighbours, largest=False).indices  # [n, neighbours]
        kept = kept & (2 * kept[nearest].sum(1) > neighbours)
    return kept | ~kept.any(1, keepdim=True)


def candidates(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """``-log sum_c p_c`` over the candidates of pixels without a label, mean over these and their two views.

    Args:
        answers: as of :meth:`KongFusion.answers`.
        truth: not looked at.
    """
    views = [answers[name].log_softmax(1) for name in ("one view", "other view")]
    with torch.no_grad():
        kept = candidate_sets(views[0].exp(), views[1].exp(), answers["features"])
    said = torch.stack([view.masked_fill(~kept, -torch.inf).logsumexp(1) for view in views])
    return mean(-said)


class KongFusion(SensorPatchMap):
    """Says of every pixel what it shows, from the patch around it that two sensors measured.

    Example:
        >>> import torch
        >>> from geomoe.models.kong_fusion import KongFusion, KongFusionConfig
        >>> sensors = {"hyperspectral": 8, "height": 1}
        >>> config = KongFusionConfig(bands=9, classes=("oak", "pine"), sensors=sensors, patch=5, width=8)
        >>> KongFusion(config).eval()(torch.rand(1, 9, 6, 4)).shape
        torch.Size([1, 2, 6, 4])
    """

    objectives: ClassVar[Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]] = {
        "candidates": candidates
    }
    """Losses of its own, of what :meth:`answers` gives and the truth."""
    config: KongFusionConfig

    def __init__(self, config: KongFusionConfig) -> None:
        super().__init__(config)
        c = config
        self.bands = tuple(c.sensors.values())
        self.mixture = BandMixture(self.bands[0], c.band_heads, c.mixed)
        self.encoder = nn.ModuleList(
            [_features(c.band_heads * c.mixed, c.width), _features(self.bands[1], c.width)]
        )
        router = Router(LinearScore(2 * c.width, len(FUSIONS)), TopK(c.top_k, "normalised"))
        self.fusion = twin_of(MoE(router, ModuleExperts([make(c) for make in FUSIONS.values()])), c.twin)
        self.head = nn.Linear(c.width, len(c.classes))

    def fused(self, patches: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Features ``[n, width]`` of patches ``[n, C, side, side]``; the plan has a row for each patch."""
        first, second = patches.split(self.bands, 1)
        pair = torch.stack([self.encoder[0](self.mixture(first)), self.encoder[1](second)], 1)
        out: Tensor = self.fusion(pair, pair.mean((3, 4)).flatten(1), trace=trace)
        return out.mean((2, 3))

    def label(self, patches: Tensor, trace: RoutingTrace | None, present: Tensor) -> Tensor:
        out: Tensor = self.head(self.fused(patches, trace))
        return out

    def answers(
        self,
        x: Tensor,
        trace: RoutingTrace | None = None,
        valid: Tensor | None = None,
        wanted: Tensor | None = None,
        present: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The map, as :meth:`forward` gives it, and what is said of some pixels whose class is not asked for.

        Returns:
            ``classes`` ``[B, K, H, W]``; ``one view`` and ``other view``, logits ``[n, K]`` of n pixels that
            are drawn, at most as many as ``unlabelled``, of those whose whole patch the image shows; their
            ``features`` ``[n, width]`` in the first view.
        """
        c = self.config
        said = self(x, trace, valid, wanted, present)
        there = presence(x, c.sensors, present, valid)
        y = self.normalise(x).masked_fill(~by_band(there, c.sensors), 0)
        free = there.any(1) if wanted is None else there.any(1) & ~wanted
        places = _whole(free, c.patch).flatten().nonzero().squeeze(1)
        drawn = places[torch.randperm(len(places), device=places.device)[: c.unlabelled]]
        chosen = torch.zeros_like(free).flatten().index_fill(0, drawn, True).view_as(free)
        patches = patches_at(y, c.patch, chosen)
        seen = patches_at(by_band(there, c.sensors).to(y.dtype), c.patch, chosen)  # what is absent stays so
        views = [patches + _NOISE * torch.randn_like(patches) * seen for _ in range(2)]
        features, turned = self.fused(views[0]), self.fused(views[1].flip(2, 3))
        return {
            "classes": said, "one view": self.head(features), "other view": self.head(turned),
            "features": features,
        }  # fmt: skip


register("kong_fusion", KongFusion, KongFusionConfig, gives="classes")
