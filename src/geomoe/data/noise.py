"""Noise of a sensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["Drowned", "Noise"]


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


@dataclass(frozen=True)
class Drowned:
    """Some images with one of their sensors drowned in noise, which is another one each time.

    What a sensor shows then is independent of the image: Gaussian, of the mean and deviation of its bands.

    Attributes:
        share: of the images.
        sensors: the bands of each.
        mean, std: of each band, in units of [0, 1].
    """

    share: float
    sensors: Sequence[slice]
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """``[C, H, W]`` in [0, 1] to the same; nothing but draws from ``rng``."""
        if rng.random() >= self.share:
            return image
        bands = self.sensors[int(rng.integers(len(self.sensors)))]
        mean, std = (np.array(values[bands])[:, None, None] for values in (self.mean, self.std))
        noise = mean + std * rng.standard_normal(image[bands].shape)
        drowned = image.clone()
        drowned[bands] = torch.from_numpy(noise.clip(0, 1)).to(image)
        return drowned
