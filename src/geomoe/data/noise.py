"""Noise of a sensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["Noise"]


@dataclass(frozen=True)
class Noise:
    """Independent Gaussian noise of variance ``read^2 + shot * x`` on a pixel of value ``x``, 0 where below.

    Read noise is the same everywhere; shot noise is that of counted photons, whose variance grows with their
    number, here by its Gaussian limit (Foi et al. 2008, "Practical Poissonian-Gaussian noise modeling and
    fitting for single-image raw-data").

    Attributes:
        read: standard deviation, in units of [0, 1]; 1 / 255 is a step of 8 bits.
        shot: variance at a value of 1, in the same units squared.
    """

    read: float
    shot: float = 0.0

    def __post_init__(self) -> None:
        if self.read < 0 or self.shot < 0:
            raise GeomoeError(f"read={self.read} and shot={self.shot}: neither may be negative")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Noise added to ``[B, C, H, W]``; drawn on the CPU, so that it is the same on every device."""
        drawn = torch.randn(x.shape, generator=generator).to(x)
        return x + drawn * (self.read**2 + self.shot * x.clamp(min=0)).sqrt()
