"""Losses of super-resolution training, by name. Each is 0 where result and truth are equal.

All take result and truth, ``[B, C, H, W]`` in about 0..1, and return a scalar: the mean over patches. They
are computed in float32 where inputs or autocast offer less, in float64 where that is given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.metrics.filters import gaussian, laplacian
from geomoe.metrics.image import ssim_map

__all__ = ["LOSSES", "Loss", "charbonnier", "edge", "frequency", "l1", "ncc", "psnr", "ssim"]

Loss = Callable[[Tensor, Tensor], Tensor]

_EPS = 1e-3
"""Where Charbonnier's penalty turns from square to absolute value (Lai et al. 2017)."""

_FINE = 1e-5
"""Mean square error, of values in 0..1, below which a patch is good enough: 50 dB."""

_FLAT = 1e-8
"""Variance, of values in 0..1, below which correlation fades out; the square of 0.03 levels of 8 bits."""


def _precise(loss: Loss) -> Loss:
    @wraps(loss)
    def run(result: Tensor, truth: Tensor) -> Tensor:
        dtype = torch.promote_types(torch.promote_types(result.dtype, truth.dtype), torch.float32)
        with torch.autocast(result.device.type, enabled=False):
            return loss(result.to(dtype), truth.to(dtype))

    return run


def _check_size(name: str, x: Tensor, least: int) -> None:
    if min(x.shape[-2:]) < least:
        raise GeomoeError(
            f"the loss {name} needs patches of {least} x {least} pixels of the result or more, not "
            f"{x.shape[-1]} x {x.shape[-2]}; give a larger --data.patch_size, or leave it out"
        )


def _charbonnier(difference: Tensor) -> Tensor:
    square = difference.square()
    # sqrt(d^2 + eps^2) - eps, written so that nothing cancels where d is small.
    return (square / ((square + _EPS**2).sqrt() + _EPS)).mean()


@_precise
def l1(result: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(result, truth)


@_precise
def charbonnier(result: Tensor, truth: Tensor) -> Tensor:
    """Mean of ``sqrt(d^2 + eps^2) - eps`` of the differences d, eps = 1e-3: L1 with a round tip.

    Charbonnier et al. 1994; for super-resolution Lai et al. 2017 (LapSRN). The constant -eps, which is not
    theirs, moves no gradient: equal images then cost nothing.
    """
    return _charbonnier(result - truth)


@_precise
def psnr(result: Tensor, truth: Tensor) -> Tensor:
    """Mean over patches of ``ln(1 + MSE / eps)``, eps = 1e-5.

    That is a constant less PSNR times ln(10) / 10, up to 50 dB, and what the score averages (Chen et al.
    2021, HINet): an error counts by its share of the patch's own, where L1 looks at rough patches most. The
    1, which is ours, keeps the gradient finite where images are equal.
    """
    mse = (result - truth).square().flatten(1).mean(1)
    return torch.log1p(mse / _FINE).mean()


@_precise
def ssim(result: Tensor, truth: Tensor) -> Tensor:
    """1 - SSIM (Wang et al. 2004), in 0..2: Gaussian window of 11 pixels, sigma 1.5, whole windows only.

    The arithmetic of the metric, :func:`geomoe.metrics.image.ssim_map`, with a peak of 1 and no rounding.
    """
    _check_size("ssim", truth, 11)
    return 1 - ssim_map(result, truth, peak=1.0).mean()


@_precise
def ncc(result: Tensor, truth: Tensor) -> Tensor:
    """1 - normalised cross-correlation of every band of every image, in 0..2; blind to gain and offset.

    After Swin2-MoSE (Rossi et al. 2024), whose released program correlates bands and images of a batch as if
    they were one; here each band of each image has its own mean and variance, so that no image of a batch
    touches another's term. ``(cov + e) / sqrt((var_x + e) (var_y + e))`` with e = 1e-8 makes two flat bands
    alike, and keeps the gradient of a flat one finite.
    """
    x, y = (t - t.mean((-2, -1), keepdim=True) for t in (result, truth))
    cov = (x * y).mean((-2, -1))
    var_x, var_y = x.square().mean((-2, -1)), y.square().mean((-2, -1))
    return 1 - ((cov + _FLAT) / ((var_x + _FLAT) * (var_y + _FLAT)).sqrt()).mean()


@_precise
def frequency(result: Tensor, truth: Tensor) -> Tensor:
    """L1 of the real and imaginary parts of the orthonormal ``rfft2``.

    Cho et al. 2021 (MIMO-UNet), at one scale: the mean over both parts of the half of the spectrum that
    ``rfft2`` keeps.
    """
    return torch.view_as_real(torch.fft.rfft2(result - truth, norm="ortho")).abs().mean()


@_precise
def edge(result: Tensor, truth: Tensor) -> Tensor:
    """Charbonnier's penalty on the difference of Laplacians of Gaussians (Marr and Hildreth 1980).

    The penalty as in MPRNet (Zamir et al. 2021); the Gaussian has sigma 1 and 5 pixels, the Laplacian is
    :func:`geomoe.metrics.filters.laplacian`. Whole windows only: three pixels on each side are not seen.
    """
    _check_size("edge", truth, 7)
    return _charbonnier(laplacian(gaussian(result - truth, 5, 1.0)))


LOSSES: dict[str, Loss] = {
    "l1": l1,
    "charbonnier": charbonnier,
    "psnr": psnr,
    "ssim": ssim,
    "ncc": ncc,
    "frequency": frequency,
    "edge": edge,
}
"""All losses by name."""
