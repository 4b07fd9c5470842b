"""What a result holds that its input does not: on scenes that are known, on noise, and beyond its range."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.metrics.shapes import check_pair

__all__ = ["noise_gain", "overshoot", "span", "worst_error"]

_SPAN = (0.1, 99.9)
"""Percentiles: a scene's range is not that of its two most unusual pixels."""


def worst_error(result: Tensor, truth: Tensor) -> float:
    """Largest absolute difference of two images ``[C, H, W]``, in their unit; 0 is best."""
    check_pair(result, truth)
    return float((result.double() - truth.double()).abs().max())


def noise_gain(result: Tensor, low: Tensor) -> float:
    """Standard deviation of a result over that of its input, of a flat scene with noise.

    Above 1 noise is made stronger. Interpolation is below it, as it takes means.

    Args:
        result: ``[C, H, W]``.
        low: the input, ``[C, h, w]``, with noise in every band.

    Returns:
        The largest of the bands; nan if a band of the input has one value alone.
    """
    before = low.double().flatten(1).std(1)
    gain = result.double().flatten(1).std(1) / before
    return math.nan if (before == 0).any() else float(gain.max())


def span(low: Tensor, valid: Tensor | None = None) -> list[float]:
    """The range of each band of a scene, between its 0.1 and its 99.9 percentile; nan without a valid pixel.

    Args:
        low: ``[C, h, w]``.
        valid: ``[C, h, w]`` bool; all pixels if None.
    """
    bands = [band if valid is None else band[valid[i]] for i, band in enumerate(low)]
    ends = [np.percentile(band.double().numpy(), _SPAN) if band.numel() else (0, math.nan) for band in bands]
    return [float(high - first) for first, high in ends]


def overshoot(
    result: Tensor, low: Tensor, scale: int, *, valid: Tensor | None = None, tolerance: float = 0.05
) -> float:
    """Share of the result's values that lie outside the range of the input around them.

    That range is of the 5 x 5 input pixels around the one that a value is drawn in, of the same band, and
    wider by ``tolerance`` of the scene's range (:func:`span`) at both ends. A sharp result overshoots a
    little at true edges; rings, dark nets and spots that nothing in the scene calls for do much more.

    Args:
        result: ``[C, h * scale, w * scale]``.
        low: the input, ``[C, h, w]``, in the same unit.
        scale: of the super-resolution.
        valid: ``[C, h, w]`` bool; values with an invalid pixel among the 5 x 5 do not count.
        tolerance: as a share of the scene's range.

    Returns:
        0 to 1, of all bands together; nan if nothing counts.

    Raises:
        GeomoeError: the result is not ``scale`` times as large.
    """
    bands, height, width = low.shape
    if result.shape != (bands, height * scale, width * scale):
        raise GeomoeError(
            f"result {tuple(result.shape)} is not {scale} times its input {tuple(low.shape)}; give the input "
            "that it was made from"
        )
    beyond = counted = 0
    for i, (of_band, room) in enumerate(zip(low, span(low, valid), strict=True)):
        good = torch.ones_like(of_band, dtype=torch.bool) if valid is None else valid[i]
        good = _largest(good.logical_not().float()) == 0
        edge = tolerance * room
        ends = -_largest(-of_band) - edge, _largest(of_band) + edge, good  # [h, w]
        least, most, counts = (end.repeat_interleave(scale, 0).repeat_interleave(scale, 1) for end in ends)
        beyond += int((((result[i] < least) | (result[i] > most)) & counts).sum())
        counted += int(counts.sum())
    return beyond / counted if counted else math.nan


def _largest(band: Tensor) -> Tensor:
    """``[h, w]``: the largest of the 5 x 5 pixels around each, fewer at the border."""
    return F.max_pool2d(band[None], 5, 1, 2)[0]
