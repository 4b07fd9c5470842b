"""Point labels: what is left of a mask where somebody has clicked once on each thing in it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from geomoe.data.legend import IGNORED

__all__ = ["points_of"]


def points_of(mask: NDArray[np.integer], least: int, rng: np.random.Generator) -> NDArray[np.integer]:
    """A mask of single pixels: of each component of a class one, any of its pixels being as likely.

    Args:
        mask: ``[H, W]`` classes from 0; :data:`geomoe.data.legend.IGNORED` where none is known.
        least: pixels of the smallest components that are given a point. The pixels of a component have its
            class and touch by their sides.
        rng: draws the pixels; the classes come in their order, components by their first pixels.
    """
    points = np.full_like(mask, IGNORED)
    for name in np.unique(mask[mask >= 0]):
        components, number = label(mask == name)
        order = np.argsort(components, axis=None, kind="stable")
        starts = np.searchsorted(components.ravel()[order], np.arange(1, number + 2))
        for start, end in pairwise(starts):
            if end - start >= least:
                points.flat[order[rng.integers(start, end)]] = name
    return points
