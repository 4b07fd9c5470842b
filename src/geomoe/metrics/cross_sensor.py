"""Scores for pairs of images of two sensors or days, whose brightness and grid do not quite agree."""

from __future__ import annotations

import math

from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.metrics.shapes import check_pair

__all__ = ["cpsnr"]


def cpsnr(
    result: Tensor, truth: Tensor, clear: Tensor | None = None, peak: float = 1.0, shift: int = 3
) -> float:
    """Corrected PSNR of ESA's PROBA-V challenge (Märtens et al. 2019), dB.

    The result, less ``shift`` pixels of each border, is laid on every window of the truth that is as large.
    The mean difference of a band over clear pixels is its bias and is taken off; the error is the mean square
    of what is left, over the clear pixels of all bands. The window of the least error counts, one for all
    bands; the challenge has one band.

    Args:
        result: ``[C, H, W]`` in 0..peak.
        truth: like ``result``.
        clear: boolean ``[H, W]``, true where the truth is seen: no cloud, no shadow. All by default.
        peak: largest value there can be.
        shift: largest shift on each axis, pixels.

    Returns:
        Infinite where the bias is all there is, and rounding leaves nothing.

    Raises:
        GeomoeError: shapes that differ, an image no larger than the shifts, or no clear pixel.
    """
    check_pair(result, truth)
    height, width = (side - 2 * shift for side in truth.shape[1:])
    if min(height, width) < 1:
        raise GeomoeError(
            f"an image of {truth.shape[2]}x{truth.shape[1]} pixels is too small for shifts of {shift} pixels"
        )
    if clear is None:
        clear = truth.new_ones(truth.shape[1:]).bool()
    if clear.shape != truth.shape[1:]:
        raise GeomoeError(f"clear {tuple(clear.shape)} and truth {tuple(truth.shape)} differ in size")
    clear = clear.bool()
    x, y = result.double()[:, shift : shift + height, shift : shift + width], truth.double()
    least = math.inf
    for row in range(2 * shift + 1):
        for column in range(2 * shift + 1):
            window = slice(row, row + height), slice(column, column + width)
            seen = clear[window]
            if seen.any():
                difference = (y[:, *window] - x)[:, seen]  # [C, clear pixels]
                least = min(least, float(difference.var(1, correction=0).mean()))
    if least == math.inf:
        raise GeomoeError("no pixel of the truth is clear, so there is nothing to compare")
    return math.inf if least == 0 else 10 * math.log10(peak**2 / least)
