"""MixtureRS: two sensors of one place, whose tokens meet in a transformer with mixtures of experts.

Liu et al., "MixtureRS: A Mixture of Expert Network Based Remote Sensing Land Classification", Remote Sensing
17(14) 2494, 2025, after MFT (Roy et al., "Multimodal Fusion Transformer for Remote Sensing Image
Classification", TGRS 2023). The first sensor, of many bands, goes through a convolution across bands and
pixels and one that adds up grouped 3x3 and 1x1 filters, and becomes four tokens: means over the patch's
pixels, each by weights of its own. The second sensor becomes one in the same way, and is the class token. In
each block the class token alone asks, and what it is told is added to all tokens; then each token goes
through a few experts of feed-forward layers.

There is no program of the paper. Its layers before the experts are MFT's, the experts have the size of MFT's
feed-forward layer. Assumed: four experts, two for each token, weighed by their shares of a softmax without
noise; as many groups in the convolution as filters before it; a norm and ReLU between both; in attention one
map from a head's eighth of the channels to all of them for all heads; dropout after the experts alone; and,
for small sizes, a learned projection of each sensor's bands in the place of principal components. In the last
block the experts see the class token alone: nothing of the others comes after it. Tokens of a sensor that a
pixel lacks are not attended to, and a class token without a sensor begins as its position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.models.options import check_divides
from geomoe.models.patch_map import SensorPatchConfig, SensorPatchMap
from geomoe.models.registry import register
from geomoe.models.sparse_ffn import sparse_ffn
from geomoe.models.twin import Twin
from geomoe.moe import FeedForwardExperts, LinearScore, MoE, Router, TopK
from geomoe.moe.plan import RoutingTrace

__all__ = ["ClassAttention", "MixtureRS", "MixtureRSConfig", "PixelTokens"]


@dataclass(frozen=True)
class MixtureRSConfig(SensorPatchConfig):
    """Everything that makes a :class:`MixtureRS`. The defaults are the published size.

    Attributes:
        reduced: channels that the bands of each sensor are brought to; None for the bands themselves.
        filters: across bands and pixels; divide ``width``.
        spectral: channels of the first sensor that each of these sees, or all where they are fewer.
        width: of the tokens.
        tokens: of the first sensor.
        depth: blocks.
        heads: of attention; divide ``width``.
        hidden: width inside an expert.
        experts: of each block.
        top_k: for each token.
        dropout: of tokens and of what the experts say, while training.
        twin: what replaces the mixtures; see :data:`geomoe.models.twin.Twin`.
    """

    patch: int = 11
    reduced: tuple[int, ...] | None = None
    filters: int = 8
    spectral: int = 9
    width: int = 64
    tokens: int = 4
    depth: int = 2
    heads: int = 8
    hidden: int = 512
    experts: int = 4
    top_k: int = 2
    dropout: float = 0.1
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("filters", self.filters, "width", self.width)
        check_divides("heads", self.heads, "width", self.width)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: expected 0 to 1, below 1")
        if len(self.sensors) != 2:
            raise ValueError(f"sensors={dict(self.sensors)!r}: expected two")
        if self.reduced is not None and not (len(self.reduced) == 2 and min(self.reduced) >= 1):
            raise ValueError(f"reduced={self.reduced!r}: expected a number of channels for each sensor")

    @property
    def channels(self) -> tuple[int, int]:
        """Of both sensors, as convolutions see them."""
        first, second = self.sensors.values() if self.reduced is None else self.reduced
        return first, second


class SpectralFeatures(nn.Module):
    """``[n, C, h, w]`` of many bands to ``[n, width, h, w]``: filters across bands, then grouped ones."""

    def __init__(self, c: MixtureRSConfig) -> None:
        super().__init__()
        self.seen = min(c.spectral, c.channels[0])
        across = conv3x3(self.seen, c.filters)
        self.across = nn.Sequential(across, nn.BatchNorm2d(c.filters), nn.ReLU())
        flat = c.filters * (c.channels[0] - self.seen + 1)
        self.grouped = nn.Conv2d(flat, c.width, 3, padding=1, groups=c.filters)
        self.point = nn.Conv2d(flat, c.width, 1)
        self.leave = nn.Sequential(nn.BatchNorm2d(c.width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        # A 3-D convolution, as one of 2-D on every window of bands: on a CPU it takes a third of the time.
        windows = x.unfold(1, self.seen, 1).movedim(-1, 2)  # [n, windows, seen, h, w]
        y = self.across(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
        y = y.transpose(1, 2).flatten(1, 2)  # [n, filters * windows, h, w], whose groups are the filters
        out: Tensor = self.leave(self.grouped(y) + self.point(y))
        return out


class PixelTokens(nn.Module):
    """``[n, C, h, w]`` to ``[n, tokens, C]``: means over pixels, each weighed for itself, projected."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(channels, tokens, bias=False)
        self.project = nn.Linear(channels, channels, bias=False)

    def weights(self, pixels: Tensor) -> Tensor:
        """``[n, tokens, h * w]``, over pixels summing to 1, of ``[n, h * w, C]``."""
        logits: Tensor = self.weigh(pixels)
        return logits.transpose(1, 2).softmax(2)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        out: Tensor = self.project(self.weights(pixels) @ pixels)
        return out


class ClassAttention(nn.Module):
    """What the first of ``[n, T, C]`` tokens is told by all of them, ``[n, 1, C]``."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, each = heads, channels // heads
        self.query, self.key, self.value = (nn.Linear(each, channels, bias=False) for _ in range(3))
        self.project = nn.Linear(heads * channels, channels)

    def forward(self, tokens: Tensor, there: Tensor) -> Tensor:
        """``there`` ``[n, T]`` bool are those that are asked."""
        each = tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [n, heads, T, C / heads]
        query, key, value = self.query(each[:, :, :1]), self.key(each), self.value(each)
        told = F.scaled_dot_product_attention(query, key, value, attn_mask=there[:, None, None])
        out: Tensor = self.project(told.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """``x + attention(LN(x))``, then ``x + MoE(LN(x))``; the plan has a row for each token."""

    def __init__(self, c: MixtureRSConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.attention = ClassAttention(c.width, c.heads)
        self.ffn = sparse_ffn(lambda: _mixture(c), c.twin, c.width)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, there: Tensor, trace: RoutingTrace | None, last: bool = False) -> Tensor:
        """Tokens ``[n, T, C]``; of the last block the first one alone, ``[n, C]``."""
        x = x + self.attention(self.norm1(x), there)
        x = x[:, 0] if last else x
        out: Tensor = x + self.dropout(self.ffn(self.norm2(x), trace))
        return out


def _mixture(c: MixtureRSConfig) -> MoE:
    choice = TopK(c.top_k, "soft" if c.top_k == 1 else "normalised")  # else the one gate would be 1
    router = Router(LinearScore(c.width, c.experts), choice)
    return MoE(router, FeedForwardExperts(c.width, c.hidden, c.experts))


class MixtureRS(SensorPatchMap):
    """Says of every pixel what it shows, from what two sensors measured in the patch around it.

    Example:
        >>> import torch
        >>> from geomoe.models.mixture_rs import MixtureRS, MixtureRSConfig
        >>> sensors = {"hyperspectral": 12, "height": 1}
        >>> config = MixtureRSConfig(bands=13, classes=("oak", "pine"), sensors=sensors, patch=5)
        >>> MixtureRS(config).eval()(torch.rand(1, 13, 6, 4)).shape
        torch.Size([1, 2, 6, 4])
    """

    def __init__(self, config: MixtureRSConfig) -> None:
        super().__init__(config)
        c = self.c = config
        self.reduce = nn.ModuleList(
            nn.Identity() if c.reduced is None else nn.Conv2d(bands, channels, 1, bias=False)
            for bands, channels in zip(c.sensors.values(), c.channels, strict=True)
        )
        self.first = nn.Sequential(SpectralFeatures(c), PixelTokens(c.width, c.tokens))
        second = (conv3x3(c.channels[1], c.width), nn.BatchNorm2d(c.width), nn.GELU())
        self.second = nn.Sequential(*second, PixelTokens(c.width, 1))
        self.positions = nn.Parameter(torch.empty(1 + c.tokens, c.width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.dropout = nn.Dropout(c.dropout)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.norm, self.head = nn.LayerNorm(c.width), nn.Linear(c.width, len(c.classes))

    def tokens(self, patches: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """``[n, 1 + tokens, width]``, the class token first, and ``[n, 1 + tokens]``, which there are."""
        both = patches.split(list(self.c.sensors.values()), 1)
        first, second = (reduce(x) for reduce, x in zip(self.reduce, both, strict=True))
        found = torch.cat([self.second(second), self.first(first)], 1)
        of = torch.cat([present[:, 1:], present[:, :1].expand(-1, self.c.tokens)], 1)
        found = torch.where(of[..., None], found, 0) + self.positions
        return self.dropout(found), torch.cat([torch.ones_like(of[:, :1]), of[:, 1:]], 1)

    def label(self, patches: Tensor, trace: RoutingTrace | None, present: Tensor) -> Tensor:
        x, there = self.tokens(patches, present)
        for number, block in enumerate(self.blocks, 1):
            x = block(x, there, trace, last=number == len(self.blocks))
        out: Tensor = self.head(self.norm(x))
        return out


register("mixture_rs", MixtureRS, MixtureRSConfig, gives="classes")
