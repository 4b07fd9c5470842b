"""Errors across the bands: ERGAS and the spectral angle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.metrics.shapes import check_pair

__all__ = ["ergas", "sam"]


def ergas(result: Tensor, truth: Tensor, scale: int) -> float:
    """Relative dimensionless global error in synthesis (Wald 2000): 0 is best, in percent of the band means.

    ``100 / scale * sqrt(mean over bands of (RMSE_b / mean_b)^2)``, with the mean of the truth; ``1 / scale``
    is the side of a fine pixel over that of a coarse one.

    Args:
        result: ``[C, H, W]`` in any unit that has a true zero, such as reflectance.
        truth: like ``result``.
        scale: of the super-resolution.

    Returns:
        0 or more; nan if a band of the truth has a mean of 0, for which it is undefined.
    """
    check_pair(result, truth)
    x, y = result.double(), truth.double()
    mean = y.mean((1, 2))
    if bool((mean == 0).any()):
        return math.nan
    relative = (x - y).square().mean((1, 2)) / mean.square()
    return 100 / scale * math.sqrt(float(relative.mean()))


def sam(result: Tensor, truth: Tensor) -> float:
    """Spectral angle mapper (Kruse et al. 1993): mean angle between the spectra of a pixel, degrees.

    0 is best; a factor on all bands of a pixel changes nothing. The cosine is clamped to -1..1, beyond which
    rounding may carry it. A pixel that is 0 in all bands of either image has no angle and is left out.

    Args:
        result: ``[C, H, W]``, two bands or more.
        truth: like ``result``.

    Returns:
        0 to 180, to 90 where no value is negative; nan if no pixel has an angle.

    Raises:
        GeomoeError: shapes that differ, or one band, of which every angle is 0.
    """
    check_pair(result, truth)
    if len(truth) < 2:
        raise GeomoeError("the spectral angle (sam) needs two bands or more, not 1; leave it out")
    x, y = result.double(), truth.double()
    lengths = x.norm(dim=0) * y.norm(dim=0)  # [H, W]
    defined = lengths > 0
    cosine = ((x * y).sum(0)[defined] / lengths[defined]).clamp(-1, 1)
    return float(torch.rad2deg(cosine.arccos()).mean())  # of nothing: nan
