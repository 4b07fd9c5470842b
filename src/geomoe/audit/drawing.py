"""What figures of an audit have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geomoe.moe.pictures import expert_colours

__all__ = ["colours", "picture", "three_bands"]

_PERCENT = (2.0, 98.0)
_HUES = 7
"""Of :func:`geomoe.moe.pictures.expert_colours`."""


def three_bands(bands: int) -> tuple[int, int, int]:
    """Those shown as red, green and blue, from 0: the first three, of many bands three spread evenly."""
    if bands > 4:
        return bands * 5 // 6, bands // 2, bands // 6
    return (0, min(1, bands - 1), min(2, bands - 1)) if bands >= 3 else (0, 0, 0)


def picture(image: Tensor) -> NDArray[np.float32]:
    """``[C, H, W]`` as ``[H, W, 3]`` in 0..1; all but three bands in 0..1 stretched by percentiles."""
    shown = image[list(three_bands(len(image)))].float().cpu().numpy()
    if len(image) != 3 or shown.min() < -0.01 or shown.max() > 1.01:
        low, high = (np.percentile(shown, p, axis=(1, 2), keepdims=True) for p in _PERCENT)
        shown = (shown - low) / np.maximum(high - low, 1e-12)
    clipped: NDArray[np.float32] = shown.clip(0, 1).transpose(1, 2, 0)
    return clipped


def colours(group_sizes: tuple[int, ...]) -> NDArray[np.float64]:
    """``[E, 3]`` in 0..1, a colour for every expert; hues are told apart with any common colour deficiency.

    Of several groups each has a hue; of one the experts have seven in turn, and then lighter ones.
    """
    if len(group_sizes) > 1:
        found = expert_colours(group_sizes)
    else:
        tints = -(-group_sizes[0] // _HUES)
        found = expert_colours((tints,) * _HUES).view(_HUES, tints, 3).transpose(0, 1).reshape(-1, 3)
    shares: NDArray[np.float64] = found[: sum(group_sizes)].double().numpy() / 255
    return shares
