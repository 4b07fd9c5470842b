"""Attention among channels instead of pixels, on ``[B, C, H, W]``: its cost is linear in the pixels.

Transposed attention, of Restormer (Zamir et al., CVPR 2022, equation 1).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.precision import at_least_single

__all__ = ["ChannelNorm", "ConvolutionalProjection", "channel_scores", "split_heads"]


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels of each pixel of ``[B, C, H, W]``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvolutionalProjection(nn.Sequential):
    """A 1x1 convolution, and a 3x3 of each channel, so that neighbours count.

    Args:
        dim_in: channels in.
        dim_out: channels out: three times ``dim_in`` for queries, keys and values at once.
    """

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(
            nn.Conv2d(dim_in, dim_out, 1), nn.Conv2d(dim_out, dim_out, 3, padding=1, groups=dim_out)
        )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``[B, C, H, W]`` to ``[B, heads, C / heads, H * W]``."""
    heads_apart: Tensor = x.flatten(2).unflatten(1, (heads, -1))
    return heads_apart


def channel_scores(q: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """Cosines of every two channels over the image, times a temperature.

    Args:
        q: ``[B, heads, c, N]``.
        k: ``[B, heads, d, N]``.
        temperature: ``[heads, 1, 1]``.

    Returns:
        ``[B, heads, c, d]``.
    """
    # The length of a channel over a whole image may be more than half precision holds.
    q, k = (F.normalize(at_least_single(x), dim=-1) for x in (q, k))
    cosines: Tensor = q @ k.transpose(-1, -2)
    return temperature * cosines
