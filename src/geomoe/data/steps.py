"""The steps in which a sensor or a file holds its values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["Steps"]


@dataclass(frozen=True)
class Steps:
    """Values rounded to ``2 ** bits - 1`` steps between 0 and 1, and clipped to that range.

    Attributes:
        bits: 1 to 16; Sentinel-2 and Landsat 8 measure in 12.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise GeomoeError(f"bits={self.bits}: must be between 1 and 16")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``[B, C, H, W]`` to the same. ``generator`` is not drawn from."""
        top = 2**self.bits - 1
        rounded: Tensor = (x * top).round().clamp(0, top) / top
        return rounded
