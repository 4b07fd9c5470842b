"""A degradation as a chain: a point spread function, sampling, then noise, compression or what else comes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from geomoe.data.jpeg import Jpeg
from geomoe.data.noise import Noise
from geomoe.data.super_resolution.psf import Psf
from geomoe.layers.super_resolution.known import Known

__all__ = ["SensorDegradation", "Stage"]


class Stage(Protocol):
    """What may follow the sampling: :class:`geomoe.data.noise.Noise`, :class:`geomoe.data.jpeg.Jpeg`."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A low-resolution image ``[B, C, h, w]`` to one of the same shape."""


@dataclass(frozen=True)
class SensorDegradation:
    """Blur and sampling by a sensor, then ``stages`` in their order, then 8 bits.

    Attributes:
        name: as in cards and on the command line.
        psf: of the sensor.
        stages: what happens to the low-resolution image.
        quantise: whether the result is rounded and clipped to 8 bits.
        seed: of everything random in it. The same seed gives the same result.
    """

    name: str
    psf: Psf
    stages: tuple[Stage, ...] = ()
    quantise: bool = True
    seed: int = 0

    @property
    def compresses(self) -> bool:
        """Whether it needs 8-bit images of 3 bands."""
        return any(isinstance(stage, Jpeg) for stage in self.stages)

    def __call__(self, x: Tensor, scale: int) -> Tensor:
        """``[B, C, H, W]`` in [0, 1] to ``[B, C, H / scale, W / scale]``."""
        generator = torch.Generator().manual_seed(self.seed)
        small = self.psf(x, scale)
        for stage in self.stages:
            small = stage(small, generator)
        return (small * 255).round().clamp(0, 255) / 255 if self.quantise else small

    def drawn(self, seed: int) -> SensorDegradation:
        """The same with another noise."""
        return replace(self, seed=seed)

    def known(self, of: Known) -> Known:
        """Its MTF, the mean of the two axes, and the noise of its stages on a pixel of 0.5."""
        variances = (stage.read**2 + stage.shot / 2 for stage in self.stages if isinstance(stage, Noise))
        noise = math.sqrt(sum(variances))
        return replace(of, kernel="sensor", mtf=math.sqrt(math.prod(self.psf.mtf)), noise=noise)

    def unrounded(self) -> SensorDegradation:
        """The same without its rounding to 8 bits."""
        return replace(self, quantise=False)
