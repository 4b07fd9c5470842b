"""An image of three bands as another sensor would have taken it: a shift that no training has shown."""

from __future__ import annotations

import torch
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["as_other_sensor"]

_GAIN = 0.85
_MIXING = ((0.80, 0.15, 0.05), (0.10, 0.80, 0.10), (0.00, 0.20, 0.80))
"""What each band of the other sensor sees of these three; each row sums to 1, so that grey stays grey."""


def as_other_sensor(images: Tensor) -> Tensor:
    """``[..., 3, H, W]`` to the same: bands that see a part of their neighbours', and less light.

    Raises:
        GeomoeError: another number of bands.
    """
    if images.shape[-3] != 3:
        raise GeomoeError(f"another sensor is known for images of 3 bands, not of {images.shape[-3]}")
    return _GAIN * torch.einsum("sb,...bhw->...shw", torch.tensor(_MIXING).to(images), images)
