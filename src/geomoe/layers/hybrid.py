"""Hybrid attention (HAT, Chen et al., "Activating More Pixels in Image Super-Resolution", CVPR 2023).

All blocks take and give ``[B, H, W, C]`` with H and W multiples of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.attention import OverlappingCrossAttention, WindowAttention

__all__ = ["ChannelPool", "Conv3x3", "HybridConfig", "ResidualHybridGroup"]

ChannelPool = Literal["image", "window"]
"""What channel attention averages over: the whole image, as published, or each window. With
``window`` nothing in the network depends on where an image was cut."""


@dataclass(frozen=True)
class HybridConfig:
    """What the blocks of one network share; see :class:`geomoe.models.mfg_hmoe.MfgHmoeConfig`."""

    dim: int
    heads: int
    window: int
    mlp_ratio: float
    compress: int
    squeeze: int
    conv_scale: float
    overlap: float
    channel_pool: ChannelPool


class Conv3x3(nn.Module):
    """A 3x3 convolution on ``[B, H, W, C]``; zeros beyond the image."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out


class DropPath(nn.Module):
    """Drops a residual branch for whole samples while training (Huang et al. 2016)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.p
        return x * keep.to(x.dtype) / (1 - self.p)


class ChannelAttention(nn.Module):
    """A gate for every channel, made from the channels' means."""

    def __init__(self, dim: int, squeeze: int, window: int, pool: ChannelPool) -> None:
        super().__init__()
        self.pool, self.window = pool, window
        self.down = nn.Linear(dim, max(dim // squeeze, 1))
        self.up = nn.Linear(max(dim // squeeze, 1), dim)

    def forward(self, x: Tensor) -> Tensor:
        """Factors in (0, 1) that broadcast over ``x`` ``[B, H, W, C]``."""
        if self.pool == "image":
            return self._gate(x.mean((1, 2), keepdim=True))
        batch, height, width, dim = x.shape
        size = self.window
        cells = x.view(batch, height // size, size, width // size, size, dim)
        return self._gate(cells.mean((2, 4), keepdim=True)).expand(cells.shape).reshape(x.shape)

    def _gate(self, mean: Tensor) -> Tensor:
        return torch.sigmoid(self.up(F.relu(self.down(mean))))


class ChannelAttentionBlock(nn.Module):
    """CAB: conv, GELU, conv, and the channel attention's gate, which the caller multiplies in."""

    def __init__(self, c: HybridConfig) -> None:
        super().__init__()
        self.conv_in = Conv3x3(c.dim, c.dim // c.compress)
        self.conv_out = Conv3x3(c.dim // c.compress, c.dim)
        self.attention = ChannelAttention(c.dim, c.squeeze, c.window, c.channel_pool)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out: Tensor = self.conv_out(F.gelu(self.conv_in(x)))
        return out, self.attention(out)


def _mlp(c: HybridConfig) -> nn.Module:
    hidden = int(c.dim * c.mlp_ratio)
    return nn.Sequential(nn.Linear(c.dim, hidden), nn.GELU(), nn.Linear(hidden, c.dim))


class HybridAttentionBlock(nn.Module):
    """HAB: ``x + W-MSA(LN(x)) + conv_scale * CAB(LN(x))``, then ``x + MLP(LN(x))``."""

    def __init__(self, c: HybridConfig, shift: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.dim)
        self.attention = WindowAttention(c.dim, c.heads, c.window, shift)
        self.conv = ChannelAttentionBlock(c)
        self.conv_scale = c.conv_scale
        self.norm2 = nn.LayerNorm(c.dim)
        self.mlp = _mlp(c)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm1(x)
        conv, gate = self.conv(n)
        # One pass over memory where three products and sums would take three.
        x = torch.addcmul(x, conv, gate, value=self.conv_scale) + self.drop_path(self.attention(n))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class OverlappingAttentionBlock(nn.Module):
    """OCAB: overlapping cross-attention, then an MLP, each with a skip."""

    def __init__(self, c: HybridConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.dim)
        self.attention = OverlappingCrossAttention(c.dim, c.heads, c.window, c.overlap)
        self.norm2 = nn.LayerNorm(c.dim)
        self.mlp = _mlp(c)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ResidualHybridGroup(nn.Module):
    """RHAG: hybrid attention blocks with shifts 0 and half a window in turn, an OCAB, a conv, a skip.

    Args:
        c: what the network's blocks share.
        drop_paths: one probability for each hybrid attention block.
    """

    def __init__(self, c: HybridConfig, drop_paths: list[float]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(HybridAttentionBlock(c, (i % 2) * (c.window // 2), p) for i, p in enumerate(drop_paths)),
            OverlappingAttentionBlock(c),
        )
        self.conv = Conv3x3(c.dim, c.dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(self.blocks(x))
        return out
