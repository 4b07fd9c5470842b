"""Filters that metrics and losses share. Whole windows only, so that no border is invented."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["gaussian", "laplacian"]


def gaussian(x: Tensor, window: int, sigma: float) -> Tensor:
    """``[..., H, W]`` to ``[..., H - window + 1, W - window + 1]`` by a Gaussian of ``sigma`` pixels."""
    taps = torch.arange(window, dtype=x.dtype, device=x.device) - window // 2
    line = torch.exp(-(taps**2) / (2 * sigma**2))
    line = line / line.sum()
    planes = x.reshape(-1, 1, *x.shape[-2:])
    out = F.conv2d(F.conv2d(planes, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
    return out.reshape(*x.shape[:-2], *out.shape[-2:])


def laplacian(x: Tensor) -> Tensor:
    """``[..., H, W]`` to ``[..., H - 2, W - 2]``, high-pass: 8 in the middle of a 3x3 window, -1 around."""
    kernel = x.new_full((3, 3), -1.0)
    kernel[1, 1] = 8
    planes = x.reshape(-1, 1, *x.shape[-2:])
    out = F.conv2d(planes, kernel.view(1, 1, 3, 3))
    return out.reshape(*x.shape[:-2], *out.shape[-2:])
