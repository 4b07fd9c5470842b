"""Fill that a scene does not declare: collars, and what lies beyond the edge of a swath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

__all__ = ["Fill", "find_fill"]

_LARGE, _LEAST = 0.01, 64
"""Share of the scene, and pixels of the grid, from which on an area is no roof and no shadow."""
_CANDIDATES = 4
"""Values that are looked at, those that the border has most often."""
_NEAR, _FEW = 0.05, 0.1
"""Of the span of values; of the pixels that have the value."""


@dataclass(frozen=True)
class Fill:
    """One value in all bands over a large connected area that touches the border.

    Attributes:
        share: of the scene's pixels that have the value in all bands, wherever they are.
        measured: whether it may as well be a measurement, as in a saturated cloud or a dark sea.
    """

    value: float
    share: float
    measured: bool


def find_fill(
    bands: Sequence[NDArray[np.float32]], valid: NDArray[np.bool_], seen: NDArray[np.bool_], *, whole: bool
) -> Fill | None:
    """The fill of a scene, by a coarse grid of its pixels; ``None`` if there is none.

    Nothing is said of a scene that has one value alone.

    Args:
        bands: ``[h, w]`` each.
        valid: ``[h, w]``, in all bands.
        seen: ``[h, w]``, what of the grid was read; areas may go on through the rest.
        whole: whether values are whole numbers.
    """
    alike = valid.copy()  # [h, w]
    for band in bands[1:]:
        alike &= band == bands[0]
    border = np.zeros_like(alike)
    border[[0, -1]] = border[:, [0, -1]] = True
    values, counts = np.unique(bands[0][alike & border], return_counts=True)
    least = max(_LARGE * seen.sum(), _LEAST)
    largest: tuple[int, np.float32] | None = None
    for value in values[np.argsort(-counts, kind="stable")[:_CANDIDATES]]:
        same = alike & (bands[0] == value)
        if same.sum() < least:
            continue
        areas, count = label(same | ~seen)
        sizes = np.bincount(areas[same], minlength=count + 1)
        size = int(sizes[areas[same & border]].max())
        if size >= least and (largest is None or size > largest[0]):
            largest = size, value
    if largest is None:
        return None
    value = largest[1]
    same = alike & (bands[0] == value)
    rest = valid & ~same
    if not rest.any():
        return None
    others = [band[rest] for band in bands]
    count = int(same.sum())
    return Fill(float(value), float(count / seen.sum()), _measured(others, float(value), count, whole))


def _measured(others: Sequence[NDArray[np.float32]], value: float, count: int, whole: bool) -> bool:
    """Whether the other pixels speak against fill.

    What several bands, or real numbers, have in common is no chance, but where a sensor saturates. Of one
    band of whole numbers it may be any even surface, unless there is a gap between it and the others.
    """
    low, high = min(float(v.min()) for v in others), max(float(v.max()) for v in others)
    if value < high and (len(others) > 1 or not whole):
        return False
    if low < value < high:
        return True
    reach = _NEAR * max(high - value, value - low)
    near = np.logical_and.reduce([np.abs(values - value) <= reach for values in others])
    return bool(near.sum() > _FEW * count)
