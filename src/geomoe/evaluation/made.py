"""Made scenes: smooth surfaces that are known at any resolution, and flat ones with noise alone.

What a model draws there and they do not hold, it invented. Surfaces are given in levels, of which 255 are
the range of an 8-bit scene, over coordinates in input pixels from the middle of the scene. The result is to
hold the surface at the middle of each of its pixels; the input's pixel is the mean of those that it covers,
in an 8-bit scene rounded to whole levels, which no model can undo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LEVELS", "Made", "flat_noise", "sea", "surfaces"]

LEVELS = 255
_SIDE = 40
"""Of a scene, input pixels: a ramp of 4 levels a pixel from corner to corner stays within the levels."""
_ANGLES = 16
_GOLDEN = 0.6180339887498949
_COLOURS = {1: (1.0,), 3: (1.0, 0.85, 0.7)}
"""By number of bands, what each is of the surface."""

_Surface = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Made:
    """A scene of which everything is known.

    Attributes:
        kind: what it is, such as ``ramp of 2 levels a pixel``.
        bits: 8 if the input was rounded to whole levels, else 16.
        low: the input, ``[C, h, w]`` in [0, 1].
        truth: ``[C, h * scale, w * scale]`` in [0, 1].
    """

    kind: str
    bits: int
    low: Tensor
    truth: Tensor


def surfaces(scale: int, bands: int, bits: int) -> Iterator[Made]:
    """Ramps in 16 directions, hills, slow waves and a relief.

    Args:
        scale: of the super-resolution.
        bands: 1 or 3; of three, each is the same surface with another contrast, as in a colour image.
        bits: 8 or 16.
    """
    for kind, surface in _all():
        fine = torch.stack([surface(*_grid(scale)) * gain for gain in _COLOURS[bands]])
        low = F.avg_pool2d(fine[None], scale)[0]
        if bits == 8:
            low = low.round()
        yield Made(kind, bits, low.float() / LEVELS, fine.float() / LEVELS)


def flat_noise(level: float, sigma: float, bands: int, bits: int, side: int = 48) -> Tensor:
    """A flat scene with white noise, ``[bands, side, side]`` in [0, 1]; each band has its own noise.

    Args:
        level: of the scene, of 255.
        sigma: standard deviation of the noise, in levels.
        bands: any number.
        bits: 8 if rounded to whole levels, else 16.
        side: in pixels.
    """
    drawn = torch.randn(bands, side, side, generator=torch.Generator().manual_seed(0))
    values = level + sigma * drawn
    return (values.round().clamp(0, LEVELS) if bits == 8 else values) / LEVELS


def sea(bits: int, side: int = 96) -> Tensor:
    """A sea of low contrast with whitecaps and a little noise, one band, ``[1, side, side]`` in [0, 1].

    Nothing is known of what is between its pixels; it shows how far a result leaves the range around them.
    """
    x, y = _grid(1, side)
    values = 60 + 4 * torch.sin(2 * math.pi * (x + 0.3 * y) / 6.3) + 3 * torch.sin(2 * math.pi * y / 9.7)
    for i in range(side // 2):  # whitecaps of about a pixel, nowhere in particular
        at = [((i + 1) * step % 1 - 0.5) * side for step in (_GOLDEN, math.sqrt(2))]
        values += (20 + 40 * (i * _GOLDEN % 1)) * torch.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 0.8)
    values += torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    return ((values.round() if bits == 8 else values) / LEVELS)[None].float()


def _all() -> Iterator[tuple[str, _Surface]]:
    for slope in (1, 2, 4):
        for i in range(_ANGLES):
            yield f"ramp of {slope} level{'s' * (slope > 1)} a pixel", _ramp(slope, i)
    for i in range(4):
        yield "hills", _hill(i)
    for period, height in ((16, 10.0), (32, 40.0), (64, 80.0)):
        for i in range(4):
            yield "slow waves", _wave(period, height, math.pi * (i + _GOLDEN) / 4)
    for i in range(4):
        yield "relief", _relief(i)


def _grid(scale: int, side: int = _SIDE) -> tuple[Tensor, Tensor]:
    """Middles of the pixels of the result: ``[1, W]`` and ``[H, 1]`` in input pixels."""
    line = (torch.arange(side * scale, dtype=torch.float64) + 0.5) / scale - side / 2
    return line[None], line[:, None]


def _ramp(slope: float, number: int) -> _Surface:
    angle = 2 * math.pi * number / _ANGLES
    along = slope * math.cos(angle), slope * math.sin(angle)
    # Dark ones and bright ones, as far as the levels leave room for it.
    room = LEVELS / 2 - 4 - (abs(along[0]) + abs(along[1])) * _SIDE / 2
    middle = LEVELS / 2 + room * (2 * (number * _GOLDEN % 1) - 1)
    return lambda x, y: middle + along[0] * x + along[1] * y


def _hill(number: int) -> _Surface:
    """Rising or falling by 100 levels, with a standard deviation of 10 or 14 pixels."""
    width, sign = (10, 14)[number % 2], (1, -1)[number // 2]

    def surface(x: Tensor, y: Tensor) -> Tensor:
        return 127 + sign * 100 * (torch.exp(-((x - 3.3) ** 2 + (y + 2.7) ** 2) / (2 * width**2)) - 0.5)

    return surface


def _wave(period: float, height: float, angle: float) -> _Surface:
    along = 2 * math.pi * math.cos(angle) / period, 2 * math.pi * math.sin(angle) / period
    return lambda x, y: 127 + height * torch.sin(along[0] * x + along[1] * y + angle)


def _relief(number: int) -> _Surface:
    """As of an elevation model: waves in all directions, of periods down to 8 pixels, falling as f^-2."""
    waves = []
    for i in range(64):
        period = 64 / 8 ** ((i + 0.5) / 64)
        direction = 2 * math.pi * ((i + 64 * number) * _GOLDEN % 1)
        phase = 2 * math.pi * ((i + 64 * number) * math.sqrt(2) % 1)
        waves.append((period, direction, phase))

    def surface(x: Tensor, y: Tensor) -> Tensor:
        total = torch.zeros(torch.broadcast_shapes(x.shape, y.shape), dtype=torch.float64)
        for period, direction, phase in waves:
            k = 2 * math.pi / period
            total += (period / 64) ** 2 * torch.sin(
                k * (x * math.cos(direction) + y * math.sin(direction)) + phase
            )
        return 127 + 16 * total

    return surface
