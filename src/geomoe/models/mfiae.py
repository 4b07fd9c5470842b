"""MFIAE: instances and regions from features of three sizes that exchange, by experts chosen under noise.

Sun et al., multi-scale feature interaction and adaptive experts for panoptic segmentation, as the survey of
mixtures of experts in remote sensing tells it; neither paper nor program could be had. From there: a
transformer whose features of several sizes interact, then a sparse mixture whose choice adaptive noise
disturbs, to explore and to save cost; instances and regions at once.

Assumed: everything in numbers; a convolutional pyramid; in each layer attention within windows, what the
other sizes have through a linear layer, and a mixture; attention and mixture shared by the sizes; noise that
is as wide as the row is sure (:class:`geomoe.moe.AdaptiveNoise`); instances by centres and offsets, as
Panoptic-DeepLab's, which needs no matching, with its weights of the losses: 200 and .01. What is said of a
pixel depends on its surroundings alone, as windows of all sizes end on the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.attention import WindowAttention
from geomoe.layers.convolution import conv3x3
from geomoe.layers.norms import ChannelNorm
from geomoe.layers.panoptic import REACH, centre_targets, components, panoptic_map, segments_of
from geomoe.layers.pixel_losses import over_pixels
from geomoe.layers.windows import crop_to, pad_to_multiple
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.label import Normalise
from geomoe.models.options import MapConfig, check_divides
from geomoe.models.registry import register
from geomoe.models.sparse_ffn import sparse_ffn
from geomoe.models.twin import Twin
from geomoe.moe import FeedForwardExperts, MoE, adaptive_noise_router, noisy_top_k_router
from geomoe.moe.plan import RoutingTrace

__all__ = ["Mfiae", "MfiaeConfig"]

_SIZES = (4, 8, 16)
"""Pixels on a side that a cell of each size of features is made of."""
_TILE = 512
_HEADS_SEE, _PYRAMID_SEES = 12, 16
"""Pixels to each side: from a pixel of the result to features, and from a cell to what it is made of."""


@dataclass(frozen=True)
class MfiaeConfig(MapConfig):
    """Everything that makes a :class:`Mfiae`.

    Attributes:
        things: classes of which there are instances; the first one by default.
        least: pixels that an instance has at least, in truths.
        width: of the features.
        layers: of attention, exchange and mixture.
        heads: of attention; divide ``width``.
        window: side of an attention window, cells.
        hidden: of each expert.
        experts: of each layer.
        top_k: of them for each cell.
        noise: ``adaptive``, or Shazeer's, which is as wide for rows that are not sure (``plain``).
        twin: what replaces the mixtures; see :data:`geomoe.models.twin.Twin`.
    """

    things: tuple[str, ...] = ()
    least: int = 30
    width: int = 64
    layers: int = 3
    heads: int = 4
    window: int = 8
    hidden: int = 128
    experts: int = 4
    top_k: int = 2
    noise: Literal["adaptive", "plain"] = "adaptive"
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "width", self.width)
        if not isinstance(self.things, tuple):
            raise ValueError(f"things={self.things!r}: expected names of classes")


def _mixture(c: MfiaeConfig) -> MoE:
    make = adaptive_noise_router if c.noise == "adaptive" else noisy_top_k_router
    return MoE(make(c.width, c.experts, c.top_k), FeedForwardExperts(c.width, c.hidden, c.experts))


class Layer(nn.Module):
    """``x + attention(LN x)``, then what the other sizes have, then ``x + mixture(LN x)``; channels last."""

    def __init__(self, c: MfiaeConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.attend = WindowAttention(c.width, c.heads, c.window, 0)
        number = len(_SIZES)
        self.exchange = nn.ModuleList(nn.Linear(c.width, c.width) for _ in range(number * (number - 1)))
        self.ffn = sparse_ffn(lambda: _mixture(c), c.twin, c.width)

    def forward(
        self, levels: Sequence[Tensor], there: Sequence[Tensor | None], trace: RoutingTrace | None
    ) -> list[Tensor]:
        """Features ``[B, H, W, C]`` of each size, the finest first, to the same; ``there`` ``[B, H, W]``."""
        seen = [x + self.attend(self.norm1(x)) for x in levels]
        ways = iter(self.exchange)
        met = []
        for i, x in enumerate(seen):
            for j, other in enumerate(seen):
                if i < j:
                    x = x + _finer(next(ways)(other), _SIZES[j] // _SIZES[i])
                elif i > j:
                    x = x + next(ways)(_coarser(other, _SIZES[i] // _SIZES[j]))
            met.append(x)
        return [x + self.ffn(self.norm2(x), trace, valid) for x, valid in zip(met, there, strict=True)]


def _finer(x: Tensor, times: int) -> Tensor:
    return x.repeat_interleave(times, 1).repeat_interleave(times, 2)


def _coarser(x: Tensor, times: int) -> Tensor:
    mean: Tensor = x.unflatten(2, (-1, times)).unflatten(1, (-1, times)).mean((2, 4))
    return mean


def _down(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(conv3x3(channels, width, 2), ChannelNorm(width), nn.GELU())


class Mfiae(nn.Module):
    """Says of every pixel what it shows, and of things to which of them it belongs.

    Example:
        >>> import torch
        >>> from geomoe.models.mfiae import Mfiae, MfiaeConfig
        >>> model = Mfiae(MfiaeConfig(classes=("building", "land"), width=8, layers=1, heads=2, window=2))
        >>> model(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 2, 9, 7])
        >>> model.instances(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 9, 7, 2])
    """

    def __init__(self, config: MfiaeConfig) -> None:
        super().__init__()
        c = self.config = config
        if not set(c.things) <= set(c.classes):  # which a configuration may not know yet
            raise ValueError(f"things={c.things!r}: expected some of {', '.join(c.classes)}")
        self.things = tuple(map(c.classes.index, c.things or c.classes[:1]))
        self.normalise = Normalise(c)
        first = nn.Sequential(_down(c.bands, c.width // 2), _down(c.width // 2, c.width))
        self.pyramid = nn.ModuleList([first, *(_down(c.width, c.width) for _ in _SIZES[1:])])
        self.blocks = nn.ModuleList(Layer(c) for _ in range(c.layers))
        outputs = {"classes": len(c.classes), "centres": 1, "offsets": 2}
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(conv3x3(c.width, c.width), nn.GELU(), nn.Conv2d(c.width, channels, 1))
                for name, channels in outputs.items()
            }
        )

    @property
    def contract(self) -> ModelContract:
        c = self.config
        multiple = _SIZES[-1] * c.window
        reach = multiple + _HEADS_SEE + _PYRAMID_SEES
        margin, tile = (-(-size // multiple) * multiple for size in (reach + REACH, _TILE))
        things = tuple(c.classes[i] for i in self.things)
        output = Output("classes", len(c.classes), classes=c.classes, colours=c.colours, things=things)
        tiling = Tiling(multiple=multiple, tile=tile, margin=margin, reach=reach)
        beside = {"centres": 1, "offsets": 2}
        return ModelContract({"image": Input(c.bands)}, {"classes": output}, tiling, beside=beside)

    @property
    def objectives(self) -> Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]:
        """Losses of its own, of what :meth:`answers` gives and the truth, a mask ``[B, H, W]``.

        ``centres``: mean squared error of the heat-map over pixels with a class. ``offsets``: mean over
        pixels of instances of how far rows and columns are wrong, added up. Means over samples.
        """
        return {"centres": self._centres, "offsets": self._offsets}

    def _centres(self, answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
        heat, _ = centre_targets(components(truth, self.things, self.config.least))
        wrong = (answers["centres"].float() - heat).square()[:, 0]
        return over_pixels(wrong * (truth >= 0), truth)

    def _offsets(self, answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
        instances = components(truth, self.things, self.config.least)
        _, ways = centre_targets(instances)
        wrong = (answers["offsets"].float() - ways).abs().sum(1)
        return over_pixels(wrong * (instances > 0), instances - 1)

    def answers(
        self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Of each pixel ``classes``, logits ``[B, K, H, W]``, the heat-map ``centres`` and ``offsets``.

        Args:
            x: ``[B, bands, H, W]``, of any size; continued by mirroring to whole windows of the coarsest.
            trace: if given, plans are appended: of each layer one for each size, the finest first; rows are
                cells.
            valid: ``[B, H, W]`` bool, the pixels that there are: the others are seen as the mean of their
                band, and cells without any are not routed.

        Returns:
            ``[B, 1, H, W]`` of the heat-map; of offsets ``[B, 2, H, W]``, rows and columns, pixels.
        """
        y = self.normalise(x)
        y = y if valid is None else y.masked_fill(~valid[:, None], 0)
        multiple = _SIZES[-1] * self.config.window
        there = _there(x, valid, multiple)
        y, levels = pad_to_multiple(y, multiple), []
        for step in self.pyramid:
            y = step(y)
            levels.append(y.permute(0, 2, 3, 1))
        for block in self.blocks:
            levels = block(levels, there, trace)
        y = levels[0]
        for coarse, size in zip(levels[1:], _SIZES[1:], strict=True):
            y = y + _finer(coarse, size // _SIZES[0])
        y = y.permute(0, 3, 1, 2)
        found = {
            name: crop_to(F.interpolate(head(y), scale_factor=_SIZES[0], mode="bilinear"), x)
            for name, head in self.heads.items()
        }
        return {**found, "offsets": found["offsets"] * _SIZES[-1]}  # about 1 inside of the network

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """Logits of the classes; see :meth:`answers`."""
        return self.answers(x, trace, valid)["classes"]

    def instances(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The panoptic map ``[B, H, W, 2]``, class and number of each pixel's instance; -1, 0 of no pixel."""
        said = self.answers(x, None, valid)
        found = panoptic_map(said["classes"], said["centres"], said["offsets"], self.things)
        if valid is not None:
            found[~valid] = found.new_tensor([-1, 0])
        return found

    def true_instances(self, truth: Tensor) -> Tensor:
        """The same of a mask ``[B, H, W]``."""
        return segments_of(truth, self.things, self.config.least)


def _there(x: Tensor, valid: Tensor | None, multiple: int) -> list[Tensor | None]:
    """Of each size which cells there are, ``[B, H', W']``; None where that is all."""
    missing = [-size % multiple for size in x.shape[2:]]
    if valid is None and not any(missing):
        return [None] * len(_SIZES)
    whole = x.new_ones(len(x), *x.shape[2:]) if valid is None else valid.to(x.dtype)
    whole = F.pad(whole, (0, missing[1], 0, missing[0]))
    return [F.max_pool2d(whole, size) > 0 for size in _SIZES]


register("mfiae", Mfiae, MfiaeConfig, gives="classes")
