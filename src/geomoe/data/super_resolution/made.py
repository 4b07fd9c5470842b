"""Surfaces that are known everywhere: what nothing may be invented on.

Ramps, hills, slow waves, specks on them, flat ground, and surfaces whose spectrum falls as a power of the
frequency, of which an elevation model is one. A network that has seen aerial photographs alone draws their
texture on all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["SURFACES", "Surface", "fractal", "get_surface", "hills", "made", "ramp", "waves"]

Surface = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""Draws one: a generator and a side in pixels to ``[side, side]``, of any range."""


def _places(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    place = np.arange(side, dtype=np.float64) - (side - 1) / 2
    return place[:, None], place[None]


def ramp(side: int, slope: float, angle: float) -> NDArray[np.float64]:
    """``[side, side]``: a plane of ``slope`` a pixel that rises along ``angle``, radians, 0 in the middle."""
    y, x = _places(side)
    return np.asarray(slope * (x * math.cos(angle) + y * math.sin(angle)))


def hills(side: int, height: float, width: float) -> NDArray[np.float64]:
    """``[side, side]``: one round hill in the middle, a Gaussian of standard deviation ``width`` pixels."""
    y, x = _places(side)
    return np.asarray(height * np.exp(-(x**2 + y**2) / (2 * width**2)))


def waves(side: int, height: float, length: float, angle: float, phase: float = 0.0) -> NDArray[np.float64]:
    """``[side, side]``: a plane wave, from -height to height, ``length`` pixels from crest to crest."""
    return np.asarray(height * np.sin(2 * math.pi * ramp(side, 1 / length, angle) + phase))


def fractal(side: int, height: float, power: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """``[side, side]`` of mean 0 and standard deviation ``height``; amplitude falls as ``f ** -power``.

    It repeats at its edges. Elevation has a power of about 2.
    """
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) * frequency**-power
    surface = np.fft.irfft2(spectrum, (side, side))
    return np.asarray(surface * (height / max(float(surface.std()), 1e-12)))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _angle(rng: np.random.Generator) -> float:
    return float(rng.uniform(0, 2 * math.pi))


def _some_hills(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    total = np.zeros((side, side))
    for _ in range(int(rng.integers(1, 6))):
        hill = hills(2 * side, rng.uniform(-0.5, 0.5), _log_uniform(rng, 4, side / 2))
        y, x = rng.integers(0, side + 1, 2)
        total += hill[y : y + side, x : x + side]
    return total


def _some_waves(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    heading, total = _angle(rng), np.zeros((side, side))
    for _ in range(int(rng.integers(1, 5))):
        length = _log_uniform(rng, 6, 2 * side)
        total += waves(side, _log_uniform(rng, 0.003, 0.2), length, heading + rng.normal(0, 0.4), _angle(rng))
    return total


def _some_specks(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Whitecaps, boats, bushes: specks of about a pixel, all bright or all dark, on slow waves."""
    total, sign = 0.3 * _some_waves(rng, side), rng.choice((-1.0, 1.0))
    width = _log_uniform(rng, 0.8, 5)
    number = 1 + int(rng.uniform(0.1, 2) * (side / (20 * width)) ** 2)
    heights = sign * np.exp(rng.uniform(math.log(0.03), math.log(0.3), number))
    widths, place = width * rng.uniform(0.8, 1.25, number), np.arange(side)
    # A round Gaussian is the product of one along rows and one along columns.
    rows, columns = (
        np.exp(-((place[:, None] - rng.uniform(0, side, number)) ** 2) / (2 * widths**2)) for _ in "yx"
    )
    total += (rows * heights) @ columns.T
    return total


SURFACES: dict[str, Surface] = {
    "ramps": lambda rng, side: ramp(side, _log_uniform(rng, 1e-4, 0.03), _angle(rng)),
    "hills": _some_hills,
    "waves": _some_waves,
    "fractals": lambda rng, side: fractal(side, _log_uniform(rng, 0.01, 0.3), rng.uniform(1.2, 2.5), rng),
    "specks": _some_specks,
    "flat": lambda rng, side: np.zeros((side, side)),
}
"""What a source of a training set can be made of, by name."""


def get_surface(name: str) -> Surface:
    """The one called ``name``; raises GeomoeError for an unknown one."""
    if name not in SURFACES:
        raise GeomoeError(f"no made surface is called {name!r}; there are: {', '.join(SURFACES)}")
    return SURFACES[name]


def made(surface: Surface, rng: np.random.Generator, side: int, bands: int) -> Tensor:
    """A surface drawn in some bands: ``[bands, side, side]`` float32 in [0, 1].

    Half have equal bands, as one band comes to a model of several; in the others each band has a gain and an
    offset of its own. What leaves [0, 1] is brought back by scaling, never clipped: an edge is no surface.
    """
    drawn = surface(rng, side)
    gain, offset = np.ones(bands), np.full(bands, rng.uniform(0.05, 0.95))
    if rng.random() < 0.5:
        gain, offset = rng.uniform(0.3, 1.0, bands), np.clip(offset + rng.normal(0, 0.1, bands), 0.02, 0.98)
    rooms = np.minimum(offset, 1 - offset) / np.maximum(gain * np.abs(drawn).max(), 1e-9)
    planes = offset[:, None, None] + (gain * min(1.0, float(rooms.min())))[:, None, None] * drawn
    return torch.from_numpy(planes.clip(0, 1).astype(np.float32))  # of rounding, 1e-17
