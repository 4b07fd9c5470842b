"""PSNR and SSIM. Which channels, border and rounding they see is the protocol's to say."""

from __future__ import annotations

import math

from torch import Tensor

from geomoe.metrics.filters import gaussian

__all__ = ["psnr", "ssim", "ssim_map", "to_luma"]

_LUMA = (65.481, 128.553, 24.966)


def to_luma(x: Tensor) -> Tensor:
    """Y of ITU-R BT.601, studio range 16-235: RGB ``[..., 3, H, W]`` in 0-255 to ``[..., 1, H, W]``."""
    weights = x.new_tensor(_LUMA).view(3, 1, 1) / 255
    return (x * weights).sum(-3, keepdim=True) + 16


def psnr(x: Tensor, y: Tensor, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB of two tensors of one shape; infinite where they are equal."""
    mse = float((x.double() - y.double()).square().mean())
    return math.inf if mse == 0 else 10 * math.log10(peak**2 / mse)


def ssim_map(x: Tensor, y: Tensor, peak: float = 255.0, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity (Wang et al. 2004) in every whole Gaussian window; differentiable.

    K1 = 0.01, K2 = 0.03, variances without Bessel's correction. Computed in the type of the inputs, of which
    anything below float32 has too few digits.

    Args:
        x: ``[..., H, W]`` in 0..peak, H and W at least ``window``.
        y: like ``x``.
        peak: largest value there can be.
        window: side of the window, odd.
        sigma: of the Gaussian, pixels.

    Returns:
        ``[..., H - window + 1, W - window + 1]`` in -1..1.
    """

    def blur(t: Tensor) -> Tensor:
        return gaussian(t, window, sigma)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    cov = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    value = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    return value / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))


def ssim(x: Tensor, y: Tensor, peak: float = 255.0, window: int = 11, sigma: float = 1.5) -> float:
    """Mean over channels and windows of :func:`ssim_map`, in float64.

    Args:
        x: ``[C, H, W]`` in 0..peak, H and W at least ``window``.
        y: like ``x``.
        peak: largest value there can be.
        window: side of the window, odd.
        sigma: of the Gaussian, pixels.
    """
    return float(ssim_map(x.double(), y.double(), peak, window, sigma).mean())
