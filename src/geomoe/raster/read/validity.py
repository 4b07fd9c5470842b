"""Pixels that hold no measurement: filled before the model looks, and lost again afterwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

__all__ = ["fill_invalid", "upsample_mask"]


_NEAR = 8
"""Pixels. Below a model's margin, so that two tiles that share a pixel fill it alike."""


def fill_invalid(data: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Give every invalid pixel a value that its surroundings make likely.

    What an invalid pixel held before never shows in the result, and neither does where a tile ends:

    1. the nearest valid pixel of the same band, if it is within a few pixels;
    2. else the mean of the bands that have a value there;
    3. else the values of the nearest pixel that has some.

    Args:
        data: ``[C, H, W]`` float32 in the model's range; anything at all, NaN too, where not valid.
        valid: ``[C, H, W]`` bool, somewhere true.

    Returns:
        ``[C, H, W]`` float32.
    """
    if valid.all():
        return data
    filled, known = data.copy(), valid.copy()
    for band, good in zip(filled, known, strict=True):  # [H, W]
        if good.any() and not good.all():
            distance, (rows, columns) = distance_transform_edt(~good, return_indices=True)
            near = distance <= _NEAR
            band[near] = band[rows, columns][near]
            good |= near
    filled[~known] = 0
    bands = known.sum(axis=0)  # [H, W]
    mean = filled.sum(axis=0) / np.maximum(bands, 1, dtype=np.float32)
    filled = np.where(known, filled, mean)
    if not bands.all():
        rows, columns = distance_transform_edt(bands == 0, return_distances=False, return_indices=True)
        filled = filled[:, rows, columns]
    return filled


def upsample_mask(valid: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    """``[..., H, W]`` to ``[..., H * scale, W * scale]``: every pixel becomes a square of its own."""
    return valid.repeat(scale, axis=-2).repeat(scale, axis=-1)
