"""Trunks of full 3x3 convolutions, which a processor's matrix units are made for: trained faster on a CPU
than window attention."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3

__all__ = ["ConvolutionBlock", "ConvolutionTrunk"]


class ConvolutionBlock(nn.Module):
    """``x + conv1x1(gelu(conv3x3(LN(x))))`` on ``[B, C, H, W]``, ``ratio`` times as wide between.

    A wide-activation residual (WDSR, Yu et al. 2018) with the norm and the GELU of ConvNeXt (Liu et al.
    2022).
    """

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.norm = nn.LayerNorm(dim)
        self.up = conv3x3(dim, hidden)
        self.down = nn.Conv2d(hidden, dim, 1)
        self.down.weight.data *= 0.5  # many residuals add up

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        out: Tensor = x + self.down(F.gelu(self.up(n)))
        return out


class ConvolutionTrunk(nn.Module):
    """Convolution, groups of residual blocks, convolution, and a skip over all: features of an image.

    An output pixel sees as far as all blocks together, and 2 pixels more.

    Args:
        bands: channels of the image.
        dim: width.
        depths: blocks in each group.
        block: makes one.
    """

    def __init__(self, bands: int, dim: int, depths: tuple[int, ...], block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.shallow = conv3x3(bands, dim)
        self.groups = nn.ModuleList(nn.Sequential(*(block() for _ in range(depth))) for depth in depths)
        self.deep = conv3x3(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``[B, bands, H, W]`` to features ``[B, C, H, W]``, and each group's output ``[B, H, W, C]``."""
        shallow = y = self.shallow(x)
        levels = []
        for group in self.groups:
            y = group(y)
            levels.append(y.permute(0, 2, 3, 1))
        return self.deep(y) + shallow, levels
