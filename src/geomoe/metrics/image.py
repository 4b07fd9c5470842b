"""PSNR and SSIM. Which channels, border and rounding they see is the protocol's to say."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["psnr", "ssim", "to_luma"]

_LUMA = (65.481, 128.553, 24.966)


def to_luma(x: Tensor) -> Tensor:
    """Y of ITU-R BT.601, studio range 16-235: RGB ``[..., 3, H, W]`` in 0-255 to ``[..., 1, H, W]``."""
    weights = x.new_tensor(_LUMA).view(3, 1, 1) / 255
    return (x * weights).sum(-3, keepdim=True) + 16


def psnr(x: Tensor, y: Tensor, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB of two tensors of one shape; infinite where they are equal."""
    mse = float((x.double() - y.double()).square().mean())
    return math.inf if mse == 0 else 10 * math.log10(peak**2 / mse)


def ssim(x: Tensor, y: Tensor, peak: float = 255.0, window: int = 11, sigma: float = 1.5) -> float:
    """Structural similarity (Wang et al. 2004), mean over channels.

    Whole Gaussian windows only, K1 = 0.01, K2 = 0.03, in float64.

    Args:
        x: ``[C, H, W]`` in 0..peak, H and W at least ``window``.
        y: like ``x``.
        peak: largest value there can be.
        window: side of the window, odd.
        sigma: of the Gaussian, pixels.
    """
    taps = torch.arange(window, dtype=torch.float64, device=x.device) - window // 2
    line = torch.exp(-(taps**2) / (2 * sigma**2))
    line = line / line.sum()
    a, b = x.double()[:, None], y.double()[:, None]

    def blur(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    value = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return float((value / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())
