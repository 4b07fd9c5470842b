"""Degradations: how a low-resolution input is made from a high-resolution image.

"Down-sampled by 4" is not a definition: the same image downsampled by two libraries differs by up
to 28 dB. A degradation therefore has a name, and the name fixes kernel, antialiasing and rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor

from geomoe.data.jpeg import Jpeg
from geomoe.data.noise import Noise
from geomoe.data.super_resolution.blind import AnyOf, DegradationMixture
from geomoe.data.super_resolution.psf import Psf
from geomoe.data.super_resolution.sensor import SensorDegradation
from geomoe.errors import GeomoeError
from geomoe.layers.super_resolution.known import Known

__all__ = [
    "DEGRADATIONS",
    "MIXED",
    "REAL",
    "UNKNOWN",
    "Degradation",
    "Degrader",
    "crop_to_multiple",
    "get_degradation",
    "interpolated",
]

REAL = "real"
"""Stands on a card in place of a name where inputs were measured by a sensor, not made."""
MIXED = "mixed"
"""Recorded where each of several sources has its own."""
UNKNOWN = "unknown"
"""Recorded where none is known, as in what is converted from a published checkpoint."""


class Degrader(Protocol):
    """What is asked of anything that makes images small."""

    @property
    def name(self) -> str:
        """As in cards and on the command line."""

    @property
    def quantise(self) -> bool:
        """Whether its results are of 8 bits."""

    @property
    def compresses(self) -> bool:
        """Whether it needs 8-bit images of 3 bands."""

    def __call__(self, x: Tensor, scale: int) -> Tensor:
        """``[B, C, H, W]`` in [0, 1] to ``[B, C, H / scale, W / scale]``."""

    def drawn(self, seed: int) -> Degrader:
        """What is random in it, fixed by ``seed``."""

    def unrounded(self) -> Degrader:
        """The same without its rounding to 8 bits."""

    def known(self, of: Known) -> Known:
        """What is known of an image made by it; ``of`` is what is known of all that it is made from."""


@dataclass(frozen=True)
class Degradation:
    """A named way to make an image small.

    Attributes:
        name: as in cards and on the command line.
        kernel: interpolation kernel; ``bicubic`` has a = -0.5 with antialiasing, ``area`` is the mean of what
            the low-resolution pixel covers.
        antialias: whether the kernel is widened by the scale, so that it is a low-pass filter too.
        quantise: whether the result is rounded and clipped to 8 bits, as a file of it would be.

    Border rule: with antialiasing, the part of the kernel beyond the image is left out and the rest
    normalised; without, edge pixels are repeated.
    """

    name: str
    kernel: Literal["bilinear", "bicubic", "area"]
    antialias: bool
    quantise: bool

    def __call__(self, x: Tensor, scale: int) -> Tensor:
        """``[B, C, H, W]`` in [0, 1] to ``[B, C, H / scale, W / scale]``.

        H and W must be multiples of ``scale``; see :func:`crop_to_multiple`.
        """
        small = F.interpolate(x, scale_factor=1 / scale, mode=self.kernel, antialias=self.antialias)
        return (small * 255).round().clamp(0, 255) / 255 if self.quantise else small

    @property
    def compresses(self) -> bool:
        """Never."""
        return False

    def drawn(self, seed: int) -> Degradation:
        """Itself: nothing in it is random."""
        return self

    def known(self, of: Known) -> Known:
        """Its kernel, if that is antialiased; the mean over a pixel is a sensor's of the MTF of a square."""
        if self.kernel == "area":
            return replace(of, kernel="sensor", mtf=2 / math.pi, noise=0.0)
        return replace(of, kernel=self.kernel, noise=0.0) if self.antialias else of

    def unrounded(self) -> Degradation:
        """The same without its rounding to 8 bits."""
        return replace(self, quantise=False)


# The 10 m bands of Sentinel-2 were specified to lie between 0.15 and 0.30 at Nyquist.
_PSF = Psf((0.2, 0.2))
_NOISE = Noise(read=0.01, shot=0.0001)
_MTF, _BITS = (0.1, 0.35), (8, 12)

_BILINEAR = Degradation("bilinear", "bilinear", antialias=True, quantise=True)
_AVERAGE = Degradation("average", "area", antialias=False, quantise=True)
_BICUBIC = Degradation("bicubic", "bicubic", antialias=True, quantise=True)

_ALL: tuple[Degrader, ...] = (
    _BILINEAR,
    _BICUBIC,
    # The pairs that the released MFG-HMoE program trains on: neither rounded nor clipped.
    Degradation("bicubic_float", "bicubic", antialias=True, quantise=False),
    Degradation("bilinear_float", "bilinear", antialias=True, quantise=False),
    # What cv2 and torch do unless told otherwise: it aliases.
    Degradation("bilinear_aliased", "bilinear", antialias=False, quantise=True),
    # What a result has that `--conserve` keeps.
    _AVERAGE,
    SensorDegradation("mtf", _PSF),
    SensorDegradation("mtf_sharp", Psf((0.3, 0.3))),
    SensorDegradation("mtf_soft", Psf((0.1, 0.1))),
    SensorDegradation("mtf_noise", _PSF, (_NOISE,)),
    SensorDegradation("mtf_noise_jpeg", _PSF, (_NOISE, Jpeg(75))),
    DegradationMixture("blind"),
    DegradationMixture("blind_float", quality=None, quantise=False),
    AnyOf(
        "sensors",
        (
            _BILINEAR,
            _BICUBIC,
            _AVERAGE,
            DegradationMixture("clean", _MTF, 1.0, (0.0, 0.0), (0.0, 0.0), None, bits=_BITS),
            DegradationMixture("noisy", _MTF, 1.0, (0.0, 0.01), (0.0, 0.0002), None, bits=_BITS),
        ),
    ),
    DegradationMixture("sensors_noise", _MTF, 1.0, (0.0, 0.05), (0.0, 0.0005), None, bits=_BITS),
    DegradationMixture("sensors_jpeg", _MTF, 1.0, (0.0, 0.004), (0.0, 0.0001), (60, 95), 1.0),
)

DEGRADATIONS: dict[str, Degrader] = {d.name: d for d in _ALL}
"""All degradations by name; ``bilinear`` (antialiased, 8-bit) is the default everywhere. docs/degradations.md
has a table of them."""


def get_degradation(name: str) -> Degrader:
    """The degradation called ``name``; raises GeomoeError for an unknown one."""
    if name == UNKNOWN:
        raise GeomoeError(
            "how the inputs of these weights were made in training is not known; 'geomoe evaluate "
            "--degradation NAME' scores them on inputs that are made as you choose"
        )
    if name == MIXED:
        raise GeomoeError(
            "the inputs of these weights were made in several ways in training; choose one by its name, "
            f"one of: {', '.join(DEGRADATIONS)}"
        )
    if name not in DEGRADATIONS:
        raise GeomoeError(f"no degradation is called {name!r}; there are: {', '.join(DEGRADATIONS)}")
    return DEGRADATIONS[name]


def crop_to_multiple(x: Tensor, scale: int) -> Tensor:
    """``[..., H, W]`` cut at the bottom and right to whole multiples of ``scale``. Never stretched."""
    return x[..., : x.shape[-2] // scale * scale, : x.shape[-1] // scale * scale]


def interpolated(x: Tensor, scale: int) -> Tensor:
    """``[B, C, H, W]`` by the bicubic kernel with a = -0.75: the baseline of every comparison here.

    It scores 0.2 to 0.4 dB higher than the kernel with a = -0.5 on images downsampled bilinearly.
    """
    return F.interpolate(x, scale_factor=scale, mode="bicubic")
