"""Rounding to integers that keeps means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["round_keeping_means"]


def round_keeping_means(
    data: NDArray[np.float64], means: NDArray[np.float64], nodata: float | None
) -> NDArray[np.float64]:
    """One band in whole numbers, whose mean over each square is exactly what it was.

    By largest remainders: of a square, as many pixels are rounded up as its mean wants, those first that
    are nearest to the next number; of two that are alike, the one that comes first in the square.

    Args:
        data: ``[H * scale, W * scale]``. The mean of each square is that of ``means``, but for what float64
            loses.
        means: ``[H, W]``, whole numbers.
        nodata: that no pixel must become, unless it is the mean of its square.

    Returns:
        Like ``data``; between the numbers next to it, but beside ``nodata``.
    """
    (height, width), scale = means.shape, data.shape[0] // means.shape[0]
    rows = data.reshape(height, scale, width, scale).swapaxes(1, 2).reshape(height * width, -1)  # [N, s * s]
    whole = np.floor(rows)
    up = np.rint(means.ravel() * scale**2) - whole.sum(axis=1)  # [N], how many pixels
    order = np.argsort(whole - rows, axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(scale**2)[None], axis=1)
    whole += place < up[:, None]
    if nodata is not None:
        _avoid(whole, means.ravel(), nodata)
    return whole.reshape(height, width, scale, scale).swapaxes(1, 2).reshape(data.shape)


def _avoid(whole: NDArray[np.float64], means: NDArray[np.float64], nodata: float) -> None:
    """Move pixels off ``nodata`` in rows ``[N, s * s]``, towards the mean, and others back by as much."""
    rows = np.flatnonzero((whole == nodata).any(axis=1) & (means != nodata))
    side = np.sign(means[rows] - nodata)[:, None]
    above = (whole[rows] - nodata) * side  # its mean is at least 1
    owed = (above == 0).sum(axis=1)
    above[above == 0] = 1
    # Whoever owes has a pixel of 2 or more, or the mean would be below 1.
    while (paying := np.flatnonzero(owed)).size:
        above[paying, above[paying].argmax(axis=1)] -= 1
        owed[paying] -= 1
    whole[rows] = nodata + above * side
