"""The range of a pair that two sensors measured: one map, found from the low-resolution image alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Stretch", "divided", "stretched"]

_LOW, _HIGH = 0.1, 99.9  # percent, as of scenes at inference
_ENOUGH = 1_000_000  # values of a band


@dataclass(frozen=True)
class Stretch:
    """``low`` of each band goes to 0 and ``low + span`` to 1; nothing is clipped.

    Attributes:
        low, span: ``[C, 1, 1]`` float32, in the units of the data; ``span > 0``.
    """

    low: Tensor
    span: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., C, H, W]`` of any type to float32."""
        return (x.float() - self.low) / self.span


def divided(bands: int, by: float = 1.0) -> Stretch:
    """To physical units: values divided by a number, such as reflectance that is stored times 10,000."""
    return Stretch(torch.zeros(bands, 1, 1), torch.full((bands, 1, 1), float(by)))


def stretched(low: Tensor) -> Stretch:
    """From the 0.1 to the 99.9 percentile of each band, as ``geomoe upscale`` brings a scene to the model.

    The high-resolution image is mapped by what its counterpart alone says: at inference there is no other.

    Args:
        low: ``[N, C, h, w]`` or ``[C, h, w]``, one acquisition; of a large one a regular part is looked at.
    """
    stack = low[None] if low.ndim == 3 else low
    step = max(1, stack.shape[0] * stack.shape[2] * stack.shape[3] // _ENOUGH)
    values = stack[::step].transpose(0, 1).flatten(1).float().numpy()  # [C, n]
    spans = np.array([_span(band, low.is_floating_point()) for band in values], dtype=np.float32)  # [C, 2]
    bottom, top = torch.from_numpy(spans)[:, :, None, None].unbind(1)
    return Stretch(bottom, top - bottom)


def _span(values: NDArray[np.float32], floats: bool) -> tuple[float, float]:
    """Where a band begins and ends: the rule of :mod:`geomoe.raster.read.radiometry`, without rasterio."""
    low, high = (float(v) for v in np.percentile(values, (_LOW, _HIGH), method="nearest"))
    if high <= low:  # nearly constant: the few pixels that differ must not be blown up
        low, high = float(values.min()), float(values.max())
    least = max(abs(low), abs(high)) * 1e-5 or 1.0 if floats else 1.0
    return (low, high) if high - low >= least else (low, low + least)
