"""The noise of an image, by blocks in which there is little else.

The second differences of Immerkaer 1996, "Fast Noise Variance Estimation", along rows and along columns,
leave nothing of a plane and little of what is smooth. Their median absolute value tells a standard deviation
that lines and edges hardly move (Donoho and Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage"),
and the most even blocks of a scene have the least else (Gao 1993, "An operational method for estimating
signal to noise ratios from data acquired with imaging spectrometers").

It is white noise that is found: of noise that resampling or compression has smoothed, less; and where no
block is even, as over trees at 10 cm, texture counts as noise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["EvenBlocks", "image_noise"]

_SIDE = 32
"""Pixels along a block: of smaller ones some are even by chance."""
_BLOCKS = 1024
_EVEN = 0.1
"""The share of blocks that counts."""
_CLIPPED = 0.2
"""The share of a block's pixels that may have its largest or its smallest value."""
_GAUSSIAN = 0.6745
"""Median absolute value of a Gaussian of standard deviation 1."""
_GAIN = 6.0
"""Standard deviation of the differences where that of white noise is 1: the root of the sum of their squared
weights, 36."""


class EvenBlocks:
    """Takes blocks of an image while its parts are read, and says in the end what noise each band has.

    Args:
        bands: of the image.
        parts: in how many it is read. Of each some blocks are taken, about a thousand in all.
    """

    def __init__(self, bands: int, parts: int = 1) -> None:
        self._each = max(1, _BLOCKS // parts)
        # Of each block, the standard deviation of its differences and the noise that they tell.
        self._found: list[list[tuple[float, float]]] = [[] for _ in range(bands)]

    def add(self, data: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Take blocks of a part, on a regular grid.

        Args:
            data: ``[C, h, w]``; the values of invalid pixels mean nothing.
            valid: ``[C, h, w]``; a block with an invalid pixel is left out.
        """
        rows, columns = data.shape[1] // _SIDE, data.shape[2] // _SIDE
        step = max(1, math.ceil(math.sqrt(rows * columns / self._each)))
        for row in range(min(step, rows) // 2, rows, step):
            for column in range(min(step, columns) // 2, columns, step):
                y, x = row * _SIDE, column * _SIDE
                place = slice(y, y + _SIDE), slice(x, x + _SIDE)
                for found, band, good in zip(self._found, data, valid, strict=True):
                    if good[place].all() and (told := _differences(band[place])) is not None:
                        found.append(told)

    def noise(self) -> tuple[float | None, ...]:
        """Standard deviation of the noise of each band, in its units; ``None`` where no block tells."""
        return tuple(map(_noise, self._found))


def image_noise(image: NDArray[np.float32]) -> float | None:
    """The noise of an image ``[C, H, W]`` in its units, the median of its bands'; ``None`` if none tells.

    Nothing tells that of an image that is less than a block, 32 pixels, high or wide.
    """
    blocks = EvenBlocks(len(image))
    blocks.add(image, np.ones(image.shape, dtype=np.bool_))
    found = [noise for noise in blocks.noise() if noise is not None]
    return float(np.median(found)) if found else None


def _differences(block: NDArray[np.float32]) -> tuple[float, float] | None:
    """What `EvenBlocks` keeps of one block.

    ``None`` of one that is clipped, or even below a step of its type: where many pixels have one value, the
    largest or the smallest, their noise cannot be seen.
    """
    if max((block == block.min()).mean(), (block == block.max()).mean()) > _CLIPPED:
        return None
    exact = block.astype(np.float64)  # of values near the largest of float32 differences would be infinite
    across = exact[:, :-2] - 2 * exact[:, 1:-1] + exact[:, 2:]
    both = across[:-2] - 2 * across[1:-1] + across[2:]  # [h - 2, w - 2]
    return float(both.std()), float(np.median(np.abs(both))) / (_GAUSSIAN * _GAIN)


def _noise(found: list[tuple[float, float]]) -> float | None:
    if not found:
        return None
    even = sorted(found)[: math.ceil(len(found) * _EVEN)]
    return float(np.median([noise for _, noise in even]))
