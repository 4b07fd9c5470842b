"""Window-attention trunks: SwinIR's (Liang et al., ICCV Workshops 2021), and HAT's (Chen et al., CVPR 2023),
which adds a branch to each block and overlapping attention to each group.

All blocks take and give ``[B, H, W, C]`` with H and W multiples of the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.attention import CosineWindowAttention, OverlappingCrossAttention, WindowAttention
from geomoe.layers.convolution import ChannelGate, conv3x3

__all__ = [
    "ChannelAttentionBlock",
    "ChannelPool",
    "Conv3x3",
    "DropPath",
    "HybridConfig",
    "HybridTrunk",
    "OverlappingAttentionBlock",
    "drop_paths",
    "mlp",
]

ChannelPool = Literal["image", "window"]
"""What channel attention averages over: the whole image, as published, or each window. With
``window`` nothing in the network depends on where an image was cut."""


@dataclass(frozen=True)
class HybridConfig:
    """What the blocks of one trunk share.

    Attributes:
        dim: channels.
        heads: of attention.
        window: side of an attention window.
        feed_forward: makes the second half of each block.
        branch: makes what runs beside attention in each block; None for nothing, as in SwinIR.
        closing: make what follows the blocks of each group.
        convolution: makes what ends each group and the trunk.
        level_norms: whether the result of each group is normalised before it goes on.
    """

    dim: int
    heads: int
    window: int
    feed_forward: Callable[[], nn.Module]
    branch: Callable[[], nn.Module] | None = None
    closing: Sequence[Callable[[], nn.Module]] = ()
    convolution: Callable[[int, int], nn.Module] = conv3x3
    level_norms: bool = False


class Conv3x3(nn.Module):
    """A 3x3 convolution, or what ``make`` makes in its place, on ``[B, H, W, C]``; zeros beyond the image."""

    def __init__(self, dim_in: int, dim_out: int, make: Callable[[int, int], nn.Module] = conv3x3) -> None:
        super().__init__()
        self.conv = make(dim_in, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out


class DropPath(nn.Module):
    """Drops a residual branch for whole samples while training (Huang et al. 2016)."""

    p: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.drops = p > 0
        # No number of Python's: for each of those the block around it would be compiled anew.
        self.register_buffer("p", torch.tensor(p), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.drops:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.p
        return x * keep.to(x.dtype) / (1 - self.p)


def drop_paths(last: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Probabilities that rise linearly from 0 to ``last`` over the blocks of all groups, by group."""
    total = sum(depths)
    rising = iter([last * i / max(total - 1, 1) for i in range(total)])
    return [[next(rising) for _ in range(depth)] for depth in depths]


class ChannelAttention(nn.Module):
    """A gate for every channel, made from the channels' means."""

    def __init__(self, dim: int, squeeze: int, window: int, pool: ChannelPool) -> None:
        super().__init__()
        self.pool, self.window = pool, window
        self.gate = ChannelGate(dim, max(dim // squeeze, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Factors in (0, 1) that broadcast over ``x`` ``[B, H, W, C]``."""
        if self.pool == "image":
            gate: Tensor = self.gate(x.mean((1, 2), keepdim=True))
            return gate
        batch, height, width, dim = x.shape
        size = self.window
        cells = x.view(batch, height // size, size, width // size, size, dim)
        return self.gate(cells.mean((2, 4), keepdim=True)).expand(cells.shape).reshape(x.shape)  # type: ignore[no-any-return]


class ChannelAttentionBlock(nn.Module):
    """HAT's branch, CAB: conv, GELU, conv, channel attention, added with a small weight.

    Args:
        dim: channels.
        compress: how far the convolutions narrow.
        squeeze: how far channel attention narrows.
        window: side of an attention window.
        pool: what channel attention averages over.
        weight: of the branch.
    """

    def __init__(
        self, dim: int, compress: int, squeeze: int, window: int, pool: ChannelPool, weight: float
    ) -> None:
        super().__init__()
        self.conv_in = Conv3x3(dim, dim // compress)
        self.conv_out = Conv3x3(dim // compress, dim)
        self.attention = ChannelAttention(dim, squeeze, window, pool)
        self.weight = weight

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        """``x`` and the branch of ``n``, added."""
        out: Tensor = self.conv_out(F.gelu(self.conv_in(n)))
        # One pass over memory where three products and sums would take three.
        return torch.addcmul(x, out, self.attention(out), value=self.weight)


def mlp(dim: int, ratio: float) -> nn.Module:
    """Two linear layers with GELU between, ``ratio`` times as wide as their ends."""
    hidden = int(dim * ratio)
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class CosineBlock(nn.Module):
    """``x + LN(attention(x))``, then ``x + LN(MLP(x))``, on ``[B, H, W, C]`` (Swin V2, Liu et al. 2022)."""

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.attention = CosineWindowAttention(dim, heads, window, shift)
        self.mlp = mlp(dim, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norms[0](self.attention(x))
        out: Tensor = x + self.norms[1](self.mlp(x))
        return out


class AttentionBlock(nn.Module):
    """``x + W-MSA(LN(x)) + branch(LN(x))``, then ``x + MLP(LN(x))``: HAB, and STL without the branch."""

    def __init__(self, c: HybridConfig, shift: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.dim)
        self.attention = WindowAttention(c.dim, c.heads, c.window, shift)
        self.branch = c.branch() if c.branch else None
        self.norm2 = nn.LayerNorm(c.dim)
        self.mlp = c.feed_forward()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm1(x)
        beside = x if self.branch is None else self.branch(x, n)
        x = beside + self.drop_path(self.attention(n))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class OverlappingAttentionBlock(nn.Module):
    """OCAB: overlapping cross-attention, then an MLP, each with a skip.

    Args:
        dim: channels.
        heads: of attention.
        window: side of the query windows.
        overlap: how much larger the key windows are.
        mlp_ratio: hidden width of the MLP over ``dim``.
    """

    def __init__(self, dim: int, heads: int, window: int, overlap: float, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = OverlappingCrossAttention(dim, heads, window, overlap)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = mlp(dim, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ResidualGroup(nn.Module):
    """RHAG, or RSTB: blocks with shifts 0 and half a window in turn, what closes them, a conv, a skip.

    Args:
        c: what the trunk's blocks share.
        drops: one probability for each block.
    """

    def __init__(self, c: HybridConfig, drops: list[float]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(AttentionBlock(c, (i % 2) * (c.window // 2), p) for i, p in enumerate(drops)),
            *(close() for close in c.closing),
        )
        self.conv = Conv3x3(c.dim, c.dim, c.convolution)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(self.blocks(x))
        return out


class HybridTrunk(nn.Module):
    """Convolution, residual groups, convolution, and a skip over all: features of an image.

    Args:
        bands: channels of the image.
        c: what the blocks share.
        depths: blocks in each group.
        drop_path: stochastic depth of the last block; rises linearly from 0.
    """

    def __init__(self, bands: int, c: HybridConfig, depths: tuple[int, ...], drop_path: float) -> None:
        super().__init__()
        self.shallow = nn.Conv2d(bands, c.dim, 3, padding=1)
        self.norm_in = nn.LayerNorm(c.dim)
        self.groups = nn.ModuleList(ResidualGroup(c, drops) for drops in drop_paths(drop_path, depths))
        self.level_norms = nn.ModuleList(
            nn.LayerNorm(c.dim) if c.level_norms else nn.Identity() for _ in depths
        )
        self.norm_out = nn.LayerNorm(c.dim)
        self.deep = c.convolution(c.dim, c.dim)
        for module in self.groups.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``[B, bands, H, W]``, H and W multiples of the window, to features ``[B, C, H, W]`` and the output
        ``[B, H, W, C]`` of every group."""
        shallow = self.shallow(x)
        tokens = self.norm_in(shallow.permute(0, 2, 3, 1))
        levels = []
        for group, norm in zip(self.groups, self.level_norms, strict=True):
            tokens = norm(group(tokens))
            levels.append(tokens)
        return self.deep(self.norm_out(tokens).permute(0, 3, 1, 2)) + shallow, levels
