"""Degradations drawn at random, for models that must not rely on one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from geomoe.data.jpeg import Jpeg
from geomoe.data.noise import Noise
from geomoe.data.steps import Steps
from geomoe.data.super_resolution.psf import Psf
from geomoe.data.super_resolution.sensor import SensorDegradation, Stage
from geomoe.layers.super_resolution.known import Known

if TYPE_CHECKING:
    from geomoe.data.super_resolution.degradation import Degrader

__all__ = ["AnyOf", "DegradationMixture"]


@dataclass(frozen=True)
class DegradationMixture:
    """One :class:`SensorDegradation` for each sample, every parameter drawn uniformly.

    Training on a family of blurs, noises and compressions is what Zhang et al. 2021 propose, "Designing a
    Practical Degradation Model for Deep Blind Image Super-Resolution". Theirs come in any order; here they
    come in one, in which a sensor and its ground segment apply them.

    Attributes:
        name: as in cards and on the command line.
        mtf: range of the MTF at Nyquist, of each axis of the kernel.
        isotropic: share of samples whose two axes are alike; the others' axes are drawn apart, and turned by
            any angle.
        read, shot: ranges of :class:`geomoe.data.noise.Noise`.
        quality: range of JPEG's, both ends included; ``None`` for no compression at all.
        compressed: share of samples that are compressed.
        bits: one of these many bits a value are left, of noise and all; empty for no steps but those of
            ``quantise``.
        quantise: whether results are rounded and clipped to 8 bits.
        seed: of the sample that a call without :meth:`drawn` makes.
    """

    name: str
    mtf: tuple[float, float] = (0.05, 0.45)
    isotropic: float = 0.5
    read: tuple[float, float] = (0.0, 0.02)
    shot: tuple[float, float] = (0.0, 0.0004)
    quality: tuple[int, int] | None = (50, 95)
    compressed: float = 0.5
    bits: tuple[int, ...] = ()
    quantise: bool = True
    seed: int = 0

    @property
    def compresses(self) -> bool:
        """Whether it needs 8-bit images of 3 bands."""
        return self.quality is not None

    def __call__(self, x: Tensor, scale: int) -> Tensor:
        """``[B, C, H, W]`` in [0, 1] to ``[B, C, H / scale, W / scale]``, by the degradation of ``seed``."""
        return self.drawn(self.seed)(x, scale)

    def drawn(self, seed: int) -> SensorDegradation:
        """The degradation of sample ``seed``: always the same one."""
        rng = np.random.default_rng(seed)
        first, second = (float(value) for value in rng.uniform(*self.mtf, 2))
        angle = rng.uniform(0, math.pi)
        psf = Psf((first, first)) if rng.random() < self.isotropic else Psf((first, second), angle)
        stages: tuple[Stage, ...] = (Noise(rng.uniform(*self.read), rng.uniform(*self.shot)),)
        if self.bits:
            stages += (Steps(int(rng.choice(self.bits))),)
        if self.quality is not None and rng.random() < self.compressed:
            stages += (Jpeg(int(rng.integers(*self.quality, endpoint=True))),)
        return SensorDegradation(self.name, psf, stages, self.quantise, seed)

    def known(self, of: Known) -> Known:
        """Nothing more: it is known of what was drawn."""
        return of

    def unrounded(self) -> DegradationMixture:
        """The same without its rounding to 8 bits."""
        return replace(self, quantise=False)


@dataclass(frozen=True)
class AnyOf:
    """One of several degradations for each sample.

    For weights that meet inputs made by more than one kernel.

    Attributes:
        name: as in cards and on the command line.
        parts: to draw from.
        shares: of samples, which sum to 1; empty where each part is as likely as the others.
        seed: of the sample that a call without :meth:`drawn` makes.
    """

    name: str
    parts: Sequence[Degrader]
    shares: tuple[float, ...] = ()
    seed: int = 0

    @property
    def quantise(self) -> bool:
        """Whether all results are of 8 bits."""
        return all(part.quantise for part in self.parts)

    @property
    def compresses(self) -> bool:
        """Whether one of them needs 8-bit images of 3 bands."""
        return any(part.compresses for part in self.parts)

    def __call__(self, x: Tensor, scale: int) -> Tensor:
        """``[B, C, H, W]`` in [0, 1] to ``[B, C, H / scale, W / scale]``, by the degradation of ``seed``."""
        return self.drawn(self.seed)(x, scale)

    def drawn(self, seed: int) -> Degrader:
        """The degradation of sample ``seed``: always the same one."""
        # Its own sequence: the part that is drawn draws from the bare seed.
        rng = np.random.default_rng((seed, 1))
        if self.shares:
            part = int(rng.choice(len(self.parts), p=self.shares))
        else:
            part = int(rng.integers(len(self.parts)))
        return self.parts[part].drawn(seed)

    def known(self, of: Known) -> Known:
        """Nothing more: it is known of what was drawn."""
        return of

    def unrounded(self) -> AnyOf:
        """The same without rounding to 8 bits."""
        return replace(self, parts=tuple(part.unrounded() for part in self.parts))
