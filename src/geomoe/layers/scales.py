"""Parts of networks that see an image at several sizes of grid; norms are of single pixels."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.conv_trunk import ConvolutionBlock
from geomoe.layers.convolution import ChannelGate, conv3x3
from geomoe.layers.gates import SCSE, ChannelAttention
from geomoe.layers.norms import ChannelNorm

__all__ = ["AtrousPyramid", "Encoder", "GatedUp", "TokenFusion"]


class Encoder(nn.Module):
    """Residual convolutions at several sizes.

    Args:
        bands: of the image.
        widths: channels of each size; the grid is halved from one to the next.
        blocks: of each size.
        stem: pixels to a side of the cells of the finest grid.
    """

    def __init__(self, bands: int, widths: tuple[int, ...], blocks: int = 1, stem: int = 1) -> None:
        super().__init__()
        first = conv3x3(bands, widths[0]) if stem == 1 else nn.Conv2d(bands, widths[0], stem, stem)
        halved = [nn.Conv2d(a, b, 2, 2) for a, b in pairwise(widths)]
        self.groups = nn.ModuleList(
            nn.Sequential(enter, *(ConvolutionBlock(width, 2.0) for _ in range(blocks)), ChannelNorm(width))
            for enter, width in zip((first, *halved), widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """``[B, bands, H, W]``, whole cells of the coarsest grid, to features, the finest first."""
        found = []
        for group in self.groups:
            x = group(x)
            found.append(x)
        return found


class AtrousPyramid(nn.Module):
    """What is around a cell at several distances, and in the whole image (ASPP, Chen et al. 2017).

    Args:
        channels: in.
        width: out.
        rates: dilations of 3x3 convolutions; 1 for a 1x1 convolution.
    """

    def __init__(self, channels: int, width: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = nn.ModuleList(
            nn.Conv2d(channels, width, 3, padding=rate, dilation=rate)
            if rate > 1
            else nn.Conv2d(channels, width, 1)
            for rate in rates
        )
        self.whole = nn.Linear(channels, width)
        self.join, self.norm = nn.Conv2d((len(rates) + 1) * width, width, 1), ChannelNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, channels, H, W]`` to ``[B, width, H, W]``."""
        whole = self.whole(x.mean((2, 3)))[..., None, None].expand(-1, -1, *x.shape[2:])
        y = torch.cat([*(conv(x) for conv in self.sizes), whole], 1)
        return F.relu(self.norm(self.join(F.relu(y))))


class GatedUp(nn.Module):
    """Twice as large, beside finer features that are let through (Attention U-Net, Oktay et al. 2018).

    Args:
        channels: of the coarser features.
        finer: of the finer ones, and of the result.
    """

    def __init__(self, channels: int, finer: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, finer, 2, 2)
        self.both, self.gate = nn.Conv2d(2 * finer, finer, 1), nn.Conv2d(finer, 1, 1)
        self.join, self.norm = conv3x3(2 * finer, finer), ChannelNorm(finer)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        """``[B, channels, H, W]`` and ``[B, finer, 2 H, 2 W]`` to the shape of the latter."""
        y = self.up(x)
        through = torch.sigmoid(self.gate(F.relu(self.both(torch.cat([y, finer], 1)))))
        return F.relu(self.norm(self.join(torch.cat([y, finer * through], 1))))


class TokenFusion(nn.Module):
    """What attention and what convolutions found in the same cells, each weighed by a gate of its own kind.

    Args:
        width: channels of what attention found.
        channels: of what convolutions found, and of the result.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(width, width, 3, padding=2, dilation=2, groups=width)
        self.of_tokens = ChannelAttention(width, 4)
        self.of_places = nn.Sequential(
            conv3x3(channels, channels),
            SCSE(channels),
            nn.Conv2d(channels, channels, 3, 1, 1, groups=channels),
        )
        self.join = nn.Conv2d(width + channels, channels, 1)
        self.mix, self.gate = conv3x3(channels, channels), ChannelGate(channels, max(channels // 4, 1))

    def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
        """``[B, width, H, W]`` and ``[B, channels, H, W]`` to the shape of the latter."""
        tokens = tokens * self.of_tokens(self.wide(tokens))
        y = self.join(torch.cat([tokens, x * torch.sigmoid(self.of_places(x))], 1))
        mixed = self.mix(F.relu(y))
        out: Tensor = y + mixed * self.gate(mixed.mean((2, 3)))[..., None, None]
        return out
