"""MobileViTv2 with a mixture of experts for each patch: a small network for cameras at the edge.

Azuh Mensah, Lee, Zhang, Shan, Heimerl, "Towards Vision Mixture of Experts for Wildlife Monitoring on the
Edge", arXiv 2411.07834, 2024: patches of MobileViTv2 (Mehta and Rastegari, TMLR 2023) are each computed by a
few experts only, a router clustering their embeddings. Assumed, since there is no program: the feed-forward
layer of every block is the mixture, of four experts, one for each patch; the router is the cosine to an
embedding of each expert (Chi et al. 2022), which a factor on the input does not change.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.hybrid import DropPath, drop_paths
from geomoe.layers.windows import crop_to, pad_to_multiple
from geomoe.models.contract import ModelContract
from geomoe.models.label import Head, Normalise, label_contract
from geomoe.models.registry import register
from geomoe.models.sparse_ffn import SparseConfig, feed_forward
from geomoe.moe.plan import RoutingTrace

__all__ = ["MobileMoE", "MobileMoEConfig", "SeparableAttention"]

_SIDE = 2
"""Side of the squares of pixels whose places attend to their like in all others."""
_STEM, _WIDTHS, _INSIDE, _LAYERS = 32, (64, 128, 256, 384, 512), (128, 192, 256), (2, 4, 3)
"""Of MobileViTv2-1.0: its first convolution, its five stages, and width and depth inside the last three."""


@dataclass(frozen=True)
class MobileMoEConfig(SparseConfig):
    """Everything that makes a :class:`MobileMoE`.

    Attributes:
        multiplier: of all widths of MobileViTv2-1.0.
        layers: of the transformers in the last three stages.
    """

    multiplier: float = 0.5
    layers: tuple[int, ...] = _LAYERS
    mlp_ratio: float = 2.0
    experts: int = 4
    router: str = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.multiplier <= 0:
            raise ValueError(f"multiplier={self.multiplier}: expected more than 0")
        if len(self.layers) != len(_LAYERS):
            raise ValueError(f"layers={self.layers!r}: expected three numbers")

    def width(self, published: int) -> int:
        """Channels in place of those of MobileViTv2-1.0, a multiple of 8."""
        return max(round(published * self.multiplier / 8), 1) * 8


def _conv(channels: int, width: int, side: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width))


class Inverted(nn.Module):
    """Twice as wide, a depthwise 3x3 convolution, and narrow again (MobileNetV2, Sandler et al. 2018)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        inside = 2 * channels
        self.layers = nn.Sequential(
            _conv(channels, inside), nn.SiLU(), _conv(inside, inside, 3, stride, groups=inside), nn.SiLU(),
            _conv(inside, width),
        )  # fmt: skip
        self.adds = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class SeparableAttention(nn.Module):
    """Attention to one learned query, in time linear in the tokens (MobileViTv2, equation 1).

    ``[B, P, N, C]`` to the same: of each of P places N tokens, over which scores sum to 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sizes = (1, channels, channels)
        self.enter, self.leave = nn.Linear(channels, sum(self.sizes)), nn.Linear(channels, channels)

    def scores(self, query: Tensor) -> Tensor:
        """``[B, P, N, 1]``, over N summing to 1."""
        return query.softmax(2)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.enter(x).split(self.sizes, -1)
        context = (self.scores(query) * key).sum(2, keepdim=True)
        out: Tensor = self.leave(F.relu(value) * context)
        return out


class Layer(nn.Module):
    """``x + attention(LN(x))``, then ``x + FFN(LN(x))``."""

    def __init__(self, c: MobileMoEConfig, channels: int, number: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = SeparableAttention(channels)
        self.ffn = feed_forward(c, channels, number, sum(c.layers))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        out: Tensor = x + self.drop_path(self.ffn(self.norm2(x), trace))
        return out


def unfold(x: Tensor) -> Tensor:
    """``[B, C, H, W]``, mirrored to whole squares, to ``[B, 4, squares, C]``: pixels by their place."""
    x = pad_to_multiple(x, _SIDE)
    x = x.unflatten(3, (-1, _SIDE)).unflatten(2, (-1, _SIDE))  # [B, C, rows, 2, columns, 2]
    return x.permute(0, 3, 5, 2, 4, 1).flatten(3, 4).flatten(1, 2)


def fold(tokens: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`unfold`, of the size of ``like``."""
    columns = -(-like.shape[3] // _SIDE)
    x = tokens.unflatten(2, (-1, columns)).unflatten(1, (_SIDE, _SIDE))  # [B, 2, 2, rows, columns, C]
    return crop_to(x.permute(0, 5, 3, 1, 4, 2).flatten(4).flatten(2, 3), like)


class Mobile(nn.Module):
    """A 3x3 convolution of each channel, transformer layers over squares, and back to the stage's width."""

    def __init__(
        self, c: MobileMoEConfig, channels: int, inside: int, first: int, drops: list[float]
    ) -> None:
        super().__init__()
        self.local = nn.Sequential(
            _conv(channels, channels, 3, groups=channels),
            nn.SiLU(),
            nn.Conv2d(channels, inside, 1, bias=False),
        )
        self.blocks = nn.ModuleList(Layer(c, inside, first + i, p) for i, p in enumerate(drops))
        self.norm, self.leave = nn.LayerNorm(inside), _conv(inside, channels)

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        y = self.local(x)
        tokens = unfold(y)
        for block in self.blocks:
            tokens = block(tokens, trace)
        out: Tensor = self.leave(fold(self.norm(tokens), y))
        return out


class MobileMoE(nn.Module):
    """Says what a whole image shows.

    Example:
        >>> import torch
        >>> from geomoe.models.mobile_moe import MobileMoE, MobileMoEConfig
        >>> config = MobileMoEConfig(classes=("forest", "river"), multiplier=0.1, sparse="all")
        >>> MobileMoE(config).eval()(torch.rand(1, 3, 40, 32)).shape
        torch.Size([1, 2])
    """

    def __init__(self, config: MobileMoEConfig) -> None:
        super().__init__()
        c = self.config = config
        self.normalise = Normalise(c)
        widths = [c.width(width) for width in _WIDTHS]
        self.stem = nn.Sequential(_conv(c.bands, c.width(_STEM), 3, 2), nn.SiLU())
        self.early = nn.Sequential(
            Inverted(c.width(_STEM), widths[0], 1), Inverted(widths[0], widths[1], 2),
            Inverted(widths[1], widths[1], 1),
        )  # fmt: skip
        self.halve = nn.ModuleList(Inverted(channels, width, 2) for channels, width in pairwise(widths[1:]))
        stages = zip(widths[2:], _INSIDE, drop_paths(c.drop_path, c.layers), strict=True)
        self.groups = nn.ModuleList(
            Mobile(c, width, c.width(inside), sum(c.layers[:i]), drops)
            for i, (width, inside, drops) in enumerate(stages)
        )
        self.head = Head(c, widths[-1])

    @property
    def contract(self) -> ModelContract:
        return label_contract(self.config, self.config.width(_WIDTHS[-1]))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Logits, or features of a network without classes.

        Args:
            x: ``[B, bands, H, W]`` in about [0, 1], of any size.
            trace: if given, the plan of every mixture is appended to it. A row is a pixel of the block's
                grid, of ``(B, place in its square, square)``.

        Returns:
            ``[B, classes]``, or as many features as the last stage has channels.
        """
        y = self.early(self.stem(self.normalise(x)))
        for halve, mobile in zip(self.halve, self.groups, strict=True):
            y = mobile(halve(y), trace)
        out: Tensor = self.head(y.mean((2, 3)), trace)
        return out


register(
    "mobile_vit",
    MobileMoE,
    MobileMoEConfig,
    {"multiplier": 1.0},
    gives="label",
    what="MobileViTv2, a small network of convolutions and attention; no experts",
)
register("mobile_moe", MobileMoE, MobileMoEConfig, {"sparse": "all"}, gives="label")
