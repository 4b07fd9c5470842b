"""Made scenes: smooth surfaces that are known at any resolution, and flat ones with noise alone.

What a model draws there and they do not hold, it invented. Values are in levels, of which 255 are the range
of an 8-bit scene, and lengths in input pixels. The result is to hold the surface at the middle of each of its
pixels. A pixel of the input is the mean of those that it covers, rounded to whole levels in an 8-bit scene,
which no model can undo.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geomoe.data.super_resolution.made import fractal, hills, ramp, waves

__all__ = ["LEVELS", "MadeScene", "flat_noise", "made_scenes", "sea"]

LEVELS = 255
_SIDE = 40
"""Of a scene: a ramp of 4 levels a pixel from corner to corner stays within the levels."""
_ANGLES = 16
_GAINS = {1: (1.0,), 3: (1.0, 0.85, 0.7)}
"""By number of bands, what each is of the surface."""
_FINER = 4
"""By which the sea is at least drawn finer than its pixels."""
_GOLDEN = (math.sqrt(5) - 1) / 2
"""Whole multiples of it, less their whole part, lie everywhere between 0 and 1."""


@dataclass(frozen=True)
class MadeScene:
    """A scene of which everything is known.

    Attributes:
        kind: what it is, such as ``ramp of 2 levels a pixel``.
        low: the input, ``[C, h, w]`` in [0, 1].
        truth: ``[C, h * scale, w * scale]`` in [0, 1].
    """

    kind: str
    low: Tensor
    truth: Tensor


def made_scenes(scale: int, bands: int, bits: int) -> Iterator[MadeScene]:
    """Ramps in 16 directions, hills and hollows, slow waves, and reliefs such as an elevation model.

    Args:
        scale: of the super-resolution.
        bands: 1 or 3; each of three is the same surface with another contrast, as in a colour image.
        bits: 8 if the input is rounded to whole levels, else 16.
    """
    for kind, surface in _surfaces(scale):
        truth = torch.from_numpy(np.stack([gain * surface for gain in _GAINS[bands]]))
        low = F.avg_pool2d(truth[None], scale)[0]
        yield MadeScene(kind, _stored(low, bits), truth.float() / LEVELS)


def flat_noise(level: float, sigma: float, bands: int, bits: int, side: int = 48) -> Tensor:
    """A flat scene with white noise, ``[bands, side, side]`` in [0, 1].

    Args:
        level: of the scene.
        sigma: standard deviation of the noise, which every band has its own of.
        bands: any number.
        bits: as for :func:`made_scenes`.
        side: in pixels.
    """
    return _stored(level + sigma * torch.randn(bands, side, side, generator=_generator()), bits)


def sea(scale: int, bits: int, side: int = 64) -> MadeScene:
    """A sea of low contrast with whitecaps, and in the input a little noise: one band of ``side`` pixels.

    It shows how far a result leaves the range around its pixels, beside how far the sea itself does.
    """
    finer = scale * math.ceil(_FINER / scale)
    fine = side * finer
    values = 60 + waves(fine, 4, 6 * finer, 0.3) + waves(fine, 3, 9.7 * finer, math.pi / 2)
    for i in range(side // 2):  # whitecaps of about a pixel, here and there
        y, x = (int((i + 1) * step % 1 * fine) for step in (_GOLDEN, math.sqrt(2)))
        cap = hills(2 * fine, 20 + 40 * (i * _GOLDEN % 1), 0.6 * finer)
        values += cap[y : y + fine, x : x + fine]
    surface = torch.from_numpy(values)[None, None]
    truth, low = (F.avg_pool2d(surface, by)[0] for by in (finer // scale, finer))
    noisy = _stored(low + torch.randn(low.shape, generator=_generator()), bits)
    return MadeScene("made sea", noisy, truth.float() / LEVELS)


def _surfaces(scale: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Kind and ``[H, W]`` of all, within the levels and so gently curved that interpolation would do."""
    side = _SIDE * scale
    for slope in (1, 2, 4):
        for i in range(_ANGLES):
            surface = ramp(side, slope / scale, 2 * math.pi * i / _ANGLES)
            room = LEVELS / 2 - surface.max() - 4
            # Dark ones and bright ones, as far as the levels leave room for it.
            middle = LEVELS / 2 + room * (2 * (i * _GOLDEN % 1) - 1)
            yield f"ramp of {slope} level{'s' * (slope > 1)} a pixel", middle + surface
    for height, width in ((100, 10), (-100, 10), (100, 14), (-100, 14)):
        corner = slice(side // 3, side // 3 + side)  # not in the middle of the scene
        yield "hills", 127 - height / 2 + hills(2 * side, height, width * scale)[corner, corner]
    for height, length in ((10, 16), (40, 32), (80, 64)):
        for i in range(4):
            yield "slow waves", 127 + waves(side, height, length * scale, math.pi * (i + _GOLDEN) / 4, i)
    for i in range(4):
        yield "relief", 127 + fractal(side, 30, 3.5, np.random.default_rng(i))


def _stored(levels: Tensor, bits: int) -> Tensor:
    return ((levels.round().clamp(0, LEVELS) if bits == 8 else levels) / LEVELS).float()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
