"""Attention among channels instead of pixels, on ``[B, C, H, W]``: its cost is linear in the pixels.

Transposed attention, of Restormer (Zamir et al., CVPR 2022, equation 1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ChannelNorm", "ConvolutionalProjection", "TransposedAttention", "transposed_attention"]


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels of each pixel of ``[B, C, H, W]``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvolutionalProjection(nn.Sequential):
    """Queries, keys and values: a 1x1 convolution, and a 3x3 of each channel, so that neighbours count.

    Args:
        dim: channels in; three times as many go out.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(
            nn.Conv2d(dim, 3 * dim, 1), nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim)
        )


def transposed_attention(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
    """``softmax(temperature * q k^T) v`` over channels, each channel of q and k of length 1 over the image.

    Args:
        q: ``[B, C, H, W]``.
        k: ``[B, D, H, W]``.
        v: like ``k``.
        temperature: one number.

    Returns:
        Like ``q``.
    """
    # The length of a channel over a whole image may be more than half precision holds.
    unit_q, unit_k = (F.normalize(x.flatten(2).float(), dim=-1) for x in (q, k))
    weights = (temperature * (unit_q @ unit_k.transpose(1, 2))).softmax(-1)  # [B, C, D]
    return (weights.to(v.dtype) @ v.flatten(2)).view(q.shape)


class TransposedAttention(nn.Module):
    """Self-attention among the channels of ``[B, C, H, W]``, with one head and a learned temperature.

    Args:
        dim: channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = ConvolutionalProjection(dim)
        self.temperature = nn.Parameter(torch.ones(()))
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, 1)
        out: Tensor = self.proj(transposed_attention(q, k, v, self.temperature))
        return out
