"""Spatial detail: the correlation of high-passed images, and the shift between two images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.metrics.filters import laplacian
from geomoe.metrics.shapes import check_pair

__all__ = ["phase_shift", "scc"]


def scc(result: Tensor, truth: Tensor) -> float:
    """Spatial correlation coefficient (Zhou, Civco and Silander 1998): 1 is best.

    Pearson's correlation of the two images after a high-pass, the 3x3 Laplacian with 8 in the middle and -1
    around, over the whole image but its outermost pixels; mean over bands. Some programs average correlations
    of small windows instead: their values are others.

    Args:
        result: ``[C, H, W]``, H and W at least 3, in any unit.
        truth: like ``result``.

    Returns:
        -1 to 1; nan if a band of either image has no detail.
    """
    check_pair(result, truth)
    if min(truth.shape[1:]) < 3:
        raise GeomoeError(f"an image of {truth.shape[2]}x{truth.shape[1]} pixels is too small for scc")
    x, y = (_centred(laplacian(t.double()), t) for t in (result, truth))
    lengths = x.norm(dim=(1, 2)) * y.norm(dim=(1, 2))  # [C]
    if bool((lengths == 0).any()):
        return math.nan
    return float(((x * y).sum((1, 2)) / lengths).mean())


def phase_shift(result: Tensor, truth: Tensor, steps: int = 100) -> tuple[float, float]:
    """How far ``result`` lies below and to the right of ``truth``, by phase correlation.

    The peak of the inverse transform of the normalised cross-power spectrum of the means over bands (Kuglin
    and Hines 1975), found on whole pixels first and then on ``1 / steps`` of one within a pixel and a half
    around (Guizar-Sicairos et al. 2008). The images are taken as periodic.

    Args:
        result: ``[C, H, W]``.
        truth: like ``result``.
        steps: parts of a pixel that are distinguished.

    Returns:
        Rows and columns, in pixels; nan for both if either image is flat.
    """
    check_pair(result, truth)
    x, y = (_centred(t.double().mean(0, keepdim=True), t)[0] for t in (result, truth))
    power = torch.fft.fft2(x) * torch.fft.fft2(y).conj()
    size = power.abs()
    if not size.any():
        return math.nan, math.nan
    # Frequencies that neither image has would bring the phase of rounding errors.
    power = torch.where(size > 1e-12 * size.max(), power / size, 0)
    height, width = x.shape
    row, column = divmod(int(torch.fft.ifft2(power).real.argmax()), width)
    around = torch.arange(-3 * steps // 2, 3 * steps // 2 + 1, dtype=torch.float64, device=x.device) / steps
    rows, columns = _wrapped(row, height) + around, _wrapped(column, width) + around
    waves = [
        torch.exp(2j * math.pi * at[:, None] * torch.fft.fftfreq(n, dtype=at.dtype, device=at.device))
        for at, n in ((rows, height), (columns, width))
    ]
    best = int((waves[0] @ power @ waves[1].T).real.argmax())
    return float(rows[best // len(columns)]), float(columns[best % len(columns)])


def _centred(x: Tensor, source: Tensor) -> Tensor:
    """``x`` less its mean, band by band; 0 where that is rounding of values as large as ``source``."""
    centred = x - x.mean((-2, -1), keepdim=True)
    flat = centred.abs().amax((-2, -1), keepdim=True) <= 1e-12 * source.abs().amax()
    return centred.masked_fill(flat, 0)


def _wrapped(shift: int, size: int) -> int:
    return shift - size if shift > size // 2 else shift
