"""HAUNet: Hybrid Attention-Based U-Shaped Network.

Wang et al., "Hybrid Attention-Based U-Shaped Network for Remote Sensing Image Super-Resolution", IEEE TGRS
2023. Single-scale extraction modules (SEM) on three levels of a U, with attention among channels on every
level, and among all pixels too on the finest. A cross-scale interaction module (CIM) replaces
the skip connections, and the input upsampled bilinearly is added at the end.

The same function as the authors' program, by whose structure the paper's outline is filled in. Every block
starts as the identity: the factors of its branches start at 0. Their program projects the coarsest level of
the CIM by the middle level's matrix and leaves its own unused; ``cross_projection="own"`` uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geomoe.layers.convolution import conv3x3
from geomoe.layers.precision import at_least_single
from geomoe.layers.transposed import ChannelNorm, ConvolutionalProjection, channel_scores, split_heads
from geomoe.layers.windows import pad_to_multiple
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.options import ScaleConfig, check_divides
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["HauNet", "HauNetConfig"]

_LEVELS = 3
_COARSEST = 2 ** (_LEVELS - 1)
_EPS = 1e-6
_SCORES = 2**24
"""Of pairs of pixels that are held at once: 64 MB."""


@dataclass(frozen=True)
class HauNetConfig(ScaleConfig):
    """Everything that makes a :class:`HauNet`. The defaults are the paper's HAUNet.

    Attributes:
        width: channels on every level.
        encoder: blocks of each level on the way down, finest level first.
        decoder: blocks of each level on the way up, finest level first.
        heads: of the attention of each level, finest first; each divides ``width``.
        cross_heads: of the CIM; divides ``width``.
        cross_projection: what projects the coarsest level of the CIM: the middle level's matrix
            (``shared``, the release's, whose third matrix is never used and never learns), or its ``own``.
    """

    width: int = 96
    encoder: tuple[int, ...] = (5, 5, 5)
    decoder: tuple[int, ...] = (5, 5, 5)
    heads: tuple[int, ...] = (1, 2, 4)
    cross_heads: int = 2
    cross_projection: Literal["shared", "own"] = "shared"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("encoder", "decoder", "heads"):
            if len(getattr(self, name)) != _LEVELS:
                raise ValueError(f"{name}={getattr(self, name)}: expected {_LEVELS} numbers, one a level")
        for heads in self.heads:
            check_divides("heads", heads, "width", self.width)
        check_divides("cross_heads", self.cross_heads, "width", self.width)


def attend_channels(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """``softmax(relu(scores))`` among channels.

    Args:
        q: ``[B, C, H, W]``.
        k: ``[B, D, H, W]``.
        v: ``[B, D, h, w]``, at as many pixels as are wanted.
        temperature: ``[heads, 1, 1]``.

    Returns:
        ``[B, C, h, w]``.
    """
    heads, v_heads = len(temperature), split_heads(v, len(temperature))
    weights = channel_scores(split_heads(q, heads), split_heads(k, heads), temperature).relu().softmax(-1)
    out: Tensor = (weights.to(v.dtype) @ v_heads).flatten(1, 2).unflatten(-1, v.shape[2:])
    return out


def _attend_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).relu().softmax(-1).to(v.dtype) @ v


def attend_pixels(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """``softmax(relu(scores))`` among all pixels, by their cosines: time is quadratic in them, memory not.

    Args:
        q: ``[B, C, H, W]``, like ``k`` and ``v``.
        k: keys.
        v: values.
        temperature: ``[heads, 1, 1]``.

    Returns:
        Like ``q``.
    """
    q_heads, k_heads, values = (split_heads(t, len(temperature)).transpose(-1, -2) for t in (q, k, v))
    rows, keys = (F.normalize(at_least_single(t), dim=-1).to(v.dtype) for t in (q_heads, k_heads))
    rows = temperature.to(v.dtype) * rows  # [B, heads, N, C / heads], as keys and values
    batch, heads, pixels, _ = rows.shape
    each = max(_SCORES // (batch * heads * pixels), 1)
    if each >= pixels:
        done = _attend_rows(rows, keys, values)
    else:
        # Each piece's scores are computed again for its gradient; all of them would not fit.
        again = torch.is_grad_enabled() and not torch.compiler.is_exporting()
        pieces = (
            checkpoint(_attend_rows, piece, keys, values, use_reentrant=False)
            if again
            else _attend_rows(piece, keys, values)
            for piece in rows.split(each, 2)
        )
        done = torch.cat(list(pieces), 2)
    out: Tensor = done.transpose(-1, -2).flatten(1, 2).unflatten(-1, q.shape[2:])
    return out


class GatedFeedForward(nn.Module):
    """``x + factor * conv(a * b)``, where ``a`` and ``b`` are the halves of ``conv(LN(x))``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim, _EPS)
        self.up = nn.Conv2d(dim, 2 * dim, 1)
        self.down = nn.Conv2d(dim, dim, 1)
        self.factor = nn.Parameter(torch.zeros(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.up(self.norm(x)).chunk(2, 1)
        out: Tensor = x + self.factor * self.down(a * b)
        return out


class Branch(nn.Module):
    """What attention of one kind learns besides queries, keys and values.

    Attributes:
        temperature: ``[heads, 1, 1]``, of its scores.
        proj: 1x1 convolution of its result.
        factor: ``[1, C, 1, 1]``, of its channels; starts at 0.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.proj = nn.Conv2d(dim, dim, 1)
        self.factor = nn.Parameter(torch.zeros(1, dim, 1, 1))


class SingleScaleExtraction(nn.Module):
    """SEM: attention among channels, and among pixels where ``spatial``, of the same queries, keys and
    values of ``LN(x)``, added at once; then a gated feed-forward layer.
    """

    def __init__(self, dim: int, heads: int, spatial: bool) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim, _EPS)
        self.qkv = ConvolutionalProjection(dim, 3 * dim)
        self.channels = Branch(dim, heads)
        self.pixels = Branch(dim, heads) if spatial else None
        self.feed_forward = GatedFeedForward(dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, 1)
        branch = self.channels
        y = x + branch.factor * branch.proj(attend_channels(q, k, v, branch.temperature))
        if self.pixels is not None:
            branch = self.pixels
            y = y + branch.factor * branch.proj(attend_pixels(q, k, v, branch.temperature))
        out: Tensor = self.feed_forward(y)
        return out


class CrossLevel(nn.Module):
    """What one level has of the CIM besides a norm and a projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query = ConvolutionalProjection(dim, dim)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.factor = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.feed_forward = GatedFeedForward(dim)

    def forward(self, x: Tensor, normed: Tensor, k: Tensor, v: Tensor, proj: nn.Module) -> Tensor:
        """``x`` and values ``v`` on the level's own grid, ``normed`` and keys ``k`` on the finest."""
        mixed = attend_channels(self.query(normed), k, v, self.temperature)
        out: Tensor = self.feed_forward(x + self.factor * proj(mixed))
        return out


class CrossScaleInteraction(nn.Module):
    """CIM: the channels of each level attend to those of all levels, on the grid of the finest."""

    def __init__(self, dim: int, heads: int, shared: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ChannelNorm(dim, _EPS) for _ in range(_LEVELS))
        self.key_value = ConvolutionalProjection(_LEVELS * dim, 2 * _LEVELS * dim)
        self.levels = nn.ModuleList(CrossLevel(dim, heads) for _ in range(_LEVELS))
        self.projections = nn.ModuleList(nn.Conv2d(dim, dim, 1) for _ in range(_LEVELS))
        self.projection_of = list(range(_LEVELS))
        if shared:
            self.projection_of[-1] -= 1
            # Frozen, so that processes which train together do not wait for its gradient.
            self.projections[-1].requires_grad_(False)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """``[B, C, H / 2^i, W / 2^i]`` for each level i, to the same shapes."""
        size = levels[0].shape[2:]
        normed = [
            norm(F.interpolate(level, size=size)) for norm, level in zip(self.norms, levels, strict=True)
        ]
        k, v = self.key_value(torch.cat(normed, 1)).chunk(2, 1)
        done = []
        for i, (part, level) in enumerate(zip(self.levels, levels, strict=True)):
            step = 2**i  # of the finest grid's pixels, a level keeps every so many
            proj = self.projections[self.projection_of[i]]
            done.append(part(level, normed[i], k, v[..., ::step, ::step], proj))
        return done


class HauNet(nn.Module):
    """Super-resolution by a U of attention among channels and among pixels.

    Example:
        >>> import torch
        >>> from geomoe.models.super_resolution.haunet import HauNet, HauNetConfig
        >>> config = HauNetConfig(scale=2, width=8, encoder=(1, 1, 1), decoder=(1, 1, 1))
        >>> HauNet(config)(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: HauNetConfig) -> None:
        super().__init__()
        c = self.config = config

        def level(i: int, depth: int) -> nn.Module:
            return nn.Sequential(
                *(SingleScaleExtraction(c.width, c.heads[i], spatial=i == 0) for _ in range(depth))
            )

        self.shallow = conv3x3(c.bands, c.width)
        self.encoder = nn.ModuleList(level(i, depth) for i, depth in enumerate(c.encoder))
        self.down = nn.ModuleList(nn.Conv2d(c.width, c.width, 2, stride=2) for _ in range(_LEVELS - 1))
        self.interaction = CrossScaleInteraction(c.width, c.cross_heads, c.cross_projection == "shared")
        self.decoder = nn.ModuleList(level(i, depth) for i, depth in enumerate(c.decoder))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c.width, c.width, 2, stride=2) for _ in range(_LEVELS - 1))
        self.last = nn.Sequential(conv3x3(c.width, c.bands * c.scale**2), nn.PixelShuffle(c.scale))

    @property
    def contract(self) -> ModelContract:
        # Attention takes in the whole image: no margin makes a tile equal to the scene.
        return ModelContract.of_images(self.config.scale, self.config.bands, Tiling(_COARSEST, 64, 16))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        base = F.interpolate(x, scale_factor=float(self.config.scale), mode="bilinear")
        y = self.shallow(pad_to_multiple(x, _COARSEST))
        levels = []
        for i, blocks in enumerate(self.encoder):
            y = blocks(y if i == 0 else self.down[i - 1](y))
            levels.append(y)
        levels = self.interaction(levels)
        y = self.decoder[-1](levels[-1])
        for i in reversed(range(_LEVELS - 1)):
            y = self.decoder[i](self.up[i](y) + levels[i])
        out: Tensor = self.last(y)
        return base + out[..., : base.shape[2], : base.shape[3]]


register("haunet", HauNet, HauNetConfig)
register("haunet_s", HauNet, HauNetConfig, {"width": 64, "encoder": (4, 3, 1), "decoder": (1, 1, 1)})
