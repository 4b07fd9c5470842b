"""Norms of images ``[B, C, H, W]``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ChannelNorm", "ValidGroupNorm"]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel of ``[B, C, H, W]`` (as ConvNeXt, Liu et al. 2022)."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x.movedim(1, -1))
        return out.movedim(-1, 1)


class ValidGroupNorm(nn.Module):
    """Group norm (Wu and He 2018) of ``[B, C, H, W]`` by the statistics of the pixels that there are."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        grouped = x.unflatten(1, (self.groups, -1))  # [B, G, C / G, H, W]
        counts = there.unsqueeze(1).expand_as(grouped)
        number = counts.sum((2, 3, 4), keepdim=True).clamp_min(1)
        mean = (grouped * counts).sum((2, 3, 4), keepdim=True) / number
        variance = ((grouped - mean).square() * counts).sum((2, 3, 4), keepdim=True) / number
        normed: Tensor = ((grouped - mean) * (variance + 1e-5).rsqrt()).flatten(1, 2)
        return normed * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
