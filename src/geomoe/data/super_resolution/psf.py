"""A sensor's blur and sampling: a Gaussian point spread function, known by its MTF, and decimation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["MTF_RANGE", "Psf", "sigma_of_mtf"]

MTF_RANGE = (0.01, 0.5)
"""What can be made: below, the kernel is wider than what is seen around a patch; above, narrower than the
grid of high-resolution pixels can hold at a scale of 2."""

_REACH = 4
"""Standard deviations at which the Gaussian ends."""


def sigma_of_mtf(mtf: float, scale: int) -> float:
    """Standard deviation, in high-resolution pixels, of the Gaussian that has a given MTF at Nyquist.

    A Gaussian passes ``exp(-2 pi^2 sigma^2 f^2)`` of the contrast at ``f`` cycles a pixel. The low-resolution
    grid's Nyquist frequency is ``1 / (2 scale)`` cycles a high-resolution pixel, hence
    ``sigma = scale sqrt(-2 ln mtf) / pi``.
    """
    return scale * math.sqrt(-2 * math.log(mtf)) / math.pi


@dataclass(frozen=True)
class Psf:
    """A Gaussian point spread function, sampled where the low-resolution pixels have their centres.

    Attributes:
        mtf: MTF at the Nyquist frequency of the low-resolution grid, 0.01 to 0.5, along the two axes of the
            kernel. It is what is added here: blur that the high-resolution image has comes on top of it.
        angle: of the first axis, radians, from along a row towards along a column.

    Border rule: the part of the kernel beyond the image is left out and the rest normalised.
    """

    mtf: tuple[float, float]
    angle: float = 0.0

    def __post_init__(self) -> None:
        low, high = MTF_RANGE
        if not all(low <= value <= high for value in self.mtf):
            raise GeomoeError(f"mtf={self.mtf}: both must be between {low} and {high}, at Nyquist")

    def kernel(self, scale: int) -> Tensor:
        """``[k, k]`` float32 of sum 1; ``k`` is even where ``scale`` is, odd where it is odd.

        Tap i lies at ``i - (k - 1) / 2`` high-resolution pixels from the centre of the low-resolution pixel,
        which for an even scale lies between four high-resolution ones.
        """
        return _kernel(self.mtf, self.angle, scale)

    def __call__(self, x: Tensor, scale: int) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C, H / scale, W / scale]``."""
        kernel = self.kernel(scale).to(x)[None, None]  # [1, 1, k, k]
        around = (kernel.shape[-1] - scale) // 2
        planes = x.flatten(0, 1)[:, None]  # [B C, 1, H, W]
        small = F.conv2d(planes, kernel, stride=scale, padding=around)
        inside = F.conv2d(torch.ones_like(planes[:1]), kernel, stride=scale, padding=around)
        result: Tensor = (small / inside).unflatten(0, x.shape[:2])[:, :, 0]
        return result


@lru_cache(maxsize=64)
def _kernel(mtf: tuple[float, float], angle: float, scale: int) -> Tensor:
    first, second = (sigma_of_mtf(value, scale) for value in mtf)
    around = max(0, math.ceil(_REACH * max(first, second) - (scale - 1) / 2))
    taps = scale + 2 * around
    place = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    y, x = place[:, None], place[None]
    along = x * math.cos(angle) + y * math.sin(angle)  # [k, k]
    across = y * math.cos(angle) - x * math.sin(angle)
    weight = torch.exp(-0.5 * ((along / first) ** 2 + (across / second) ** 2))
    return (weight / weight.sum()).float()
