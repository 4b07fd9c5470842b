"""Whether two rasters lie on each other."""

from __future__ import annotations

import numpy as np
from affine import Affine

__all__ = ["same_transform"]

_APART = 1e-3
"""Of the side of a pixel, that corners may be away from each other: what programs round differently."""


def same_transform(one: Affine | None, other: Affine | None, width: int, height: int) -> bool:
    """Whether all pixels of two rasters of one size lie on each other, but for roundings."""
    if one is None or other is None or one == other:
        return one is other or one == other
    corners = ((0, 0), (width, 0), (0, height))
    away = np.array([~other * (one * corner) for corner in corners]) - corners
    return bool(np.abs(away).max() < _APART)
