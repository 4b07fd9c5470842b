"""Pixels that hold no measurement: filled before the model looks, and lost again afterwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

__all__ = ["fill_invalid", "upsample_mask"]


def fill_invalid(data: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Give every invalid pixel the value of the nearest valid pixel of its band.

    What an invalid pixel held before never shows in the result.

    Args:
        data: ``[C, H, W]`` float32; anything at all, NaN too, where not valid.
        valid: ``[C, H, W]`` bool.

    Returns:
        ``[C, H, W]`` float32; 0 throughout a band that has no valid pixel.
    """
    if valid.all():
        return data
    filled = data.copy()
    for band, good in zip(filled, valid, strict=True):  # [H, W]
        if good.all():
            continue
        if not good.any():
            band[:] = 0
            continue
        rows, columns = distance_transform_edt(~good, return_distances=False, return_indices=True)
        band[:] = band[rows, columns]
    return filled


def upsample_mask(valid: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    """``[..., H, W]`` to ``[..., H * scale, W * scale]``: every pixel becomes a square of its own."""
    return valid.repeat(scale, axis=-2).repeat(scale, axis=-1)
