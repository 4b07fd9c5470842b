"""Satellites that are made of one: how each would have taken an image of red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.data.images import to_unit
from geomoe.data.noise import Noise
from geomoe.data.steps import Steps
from geomoe.errors import GeomoeError

__all__ = ["SATELLITES", "Satellite", "satellite"]


@dataclass(frozen=True)
class Satellite:
    """Coarser pixels, another curve, other bands, haze and noise, one after the other, in 8 bits.

    Attributes:
        coarser: side of its pixels over that of the image's, 1 or more; the result is as large as the image.
        gamma: exponent of the values in [0, 1].
        bands: what its red, green and blue are of the image's, a row each; as they are by default.
        haze: share of white in every pixel, 0 to below 1.
        noise: standard deviation, in units of [0, 1].
    """

    coarser: float = 1.0
    gamma: float = 1.0
    bands: tuple[tuple[float, ...], ...] = ()
    haze: float = 0.0
    noise: float = 0.0

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """One image, uint8 or float in [0, 1], ``[3, H, W]`` to uint8; one seed gives one noise."""
        x = to_unit(image)[None]
        if self.coarser > 1:
            size = [max(round(side / self.coarser), 1) for side in x.shape[2:]]
            small = F.interpolate(x, size, mode="area")
            x = F.interpolate(small, image.shape[1:], mode="bilinear", align_corners=False)
        x = x.clamp(0, 1) ** self.gamma
        if self.bands:
            x = torch.einsum("ij,bjhw->bihw", torch.tensor(self.bands), x)
        x = torch.lerp(x, torch.ones(()), self.haze)
        if self.noise:
            x = Noise(self.noise)(x, torch.Generator().manual_seed(seed))
        return (Steps(8)(x[0]) * 255).round().to(torch.uint8)


SATELLITES: dict[str, Satellite] = {
    "D1": Satellite(),
    "D2": Satellite(coarser=2.0, bands=((0.8, 0.15, 0.05), (0.1, 0.8, 0.1), (0.0, 0.2, 0.8))),
    "D3": Satellite(gamma=1.4, haze=0.25, noise=0.03),
    "D4": Satellite(coarser=1.5, gamma=0.8, bands=((0.9, 0.0, 0.1), (0.2, 0.7, 0.1), (0.1, 0.1, 0.8))),
}
"""By name; the last one is meant to be seen in no training."""


def satellite(name: str) -> Satellite:
    """The satellite called ``name``; raises GeomoeError for an unknown one."""
    if name not in SATELLITES:
        raise GeomoeError(f"no satellite is called {name!r}; there are: {', '.join(SATELLITES)}")
    return SATELLITES[name]
