"""Pairs of several sources, mixed by their shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict, Unpack

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from geomoe.data.images import MAX_PIXELS
from geomoe.data.split import Part
from geomoe.data.super_resolution.degradation import Degrader
from geomoe.data.super_resolution.made import SURFACES, made
from geomoe.data.super_resolution.pairs import ImagePairs, Pairs, degrade, inner, mirror_to
from geomoe.data.super_resolution.sources import Source, read_part
from geomoe.errors import GeomoeError
from geomoe.layers.super_resolution.known import Known

__all__ = ["MadePairs", "MixedPairs", "Reading", "mixed_pairs", "source_pairs"]

_AROUND = 4  # low-resolution pixels that are made with a surface's patch, as around one of an image
_MADE_VALIDATION = 4  # surfaces of a source


class MadePairs(Dataset[tuple[Tensor, Tensor]]):
    """Made surfaces, a new one for every patch, and some whole ones.

    Args:
        kinds: of surfaces.
        scale: of the pairs.
        bands: of the pairs.
        degradation: makes the low ones; surfaces are floats, which are not rounded but by its own steps.
    """

    _SIDE = 64  # low-resolution pixels of a whole one

    def __init__(self, kinds: Sequence[str], scale: int, bands: int, degradation: Degrader) -> None:
        self.kinds, self.scale, self.bands, self.degradation = tuple(kinds), scale, bands, degradation

    @property
    def sides(self) -> Sequence[int]:
        """Of whole ones; patches may be of any size."""
        return [self._SIDE] * len(self)

    def __len__(self) -> int:
        return _MADE_VALIDATION * len(self.kinds)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._pair(index, self._SIDE, np.random.default_rng(index), index)

    def draw(self, rng: np.random.Generator) -> int:
        """Any kind, each as likely as the others."""
        return int(rng.integers(len(self.kinds)))

    def known(self, index: int, seed: int) -> Known:
        """By what degradation it is made."""
        return self.degradation.drawn(seed).known(Known())

    def _pair(self, index: int, side: int, rng: np.random.Generator, seed: int) -> tuple[Tensor, Tensor]:
        surface = SURFACES[self.kinds[index % len(self.kinds)]]
        high = made(surface, rng, side * self.scale, self.bands)
        return degrade(high, self.scale, self.degradation.drawn(seed))

    def cut(
        self, index: int, patch: int, rng: np.random.Generator, seed: int, any_phase: bool
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`Pairs.cut`; a new surface, so that its phase is any."""
        low, high = self._pair(index, patch + 2 * _AROUND, rng, seed)
        return inner(low, high, (_AROUND, _AROUND), patch, self.scale)


class MixedPairs(Dataset[tuple[Tensor, Tensor]]):
    """The pairs of several sources, one after the other; a patch comes from each in its share of cases.

    Args:
        parts: pairs, each with the share of its source.
    """

    def __init__(self, parts: Sequence[tuple[Pairs, float]]) -> None:
        self.parts = [pairs for pairs, _ in parts]
        shares = np.array([share for _, share in parts], dtype=np.float64)
        self.shares = shares / shares.sum()
        self.starts = np.cumsum([0, *(len(pairs) for pairs in self.parts)])

    @property
    def sides(self) -> Sequence[int]:
        """The smaller side of each low-resolution image, pixels."""
        return [side for pairs in self.parts for side in pairs.sides]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _where(self, index: int) -> tuple[Pairs, int]:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part], index - int(self.starts[part])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pairs, number = self._where(index)
        return pairs[number]

    def draw(self, rng: np.random.Generator) -> int:
        """A source by its share, then one of its pairs."""
        part = int(rng.choice(len(self.parts), p=self.shares))
        return int(self.starts[part]) + self.parts[part].draw(rng)

    def known(self, index: int, seed: int) -> Known:
        """As the source has it."""
        pairs, number = self._where(index)
        return pairs.known(number, seed)

    def cut(
        self, index: int, patch: int, rng: np.random.Generator, seed: int, any_phase: bool
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`Pairs.cut`."""
        pairs, number = self._where(index)
        return pairs.cut(number, patch, rng, seed, any_phase)


class Reading(TypedDict):
    """How sources are read.

    Attributes:
        scale: 2, 3, 4 or 8.
        bands: of the pairs.
        validation: share of what is not held out.
        patch: side of a low-resolution patch; smaller training images are continued by mirroring.
        skip: whether images that cannot be read are left out; not, if it is not said.
        max_pixels: that an image may have; see :func:`geomoe.data.images.read_picture`.
        say: called with a line about them, and about the others.
    """

    scale: int
    bands: int
    validation: float
    patch: int
    skip: NotRequired[bool]
    max_pixels: NotRequired[int]
    say: NotRequired[Callable[[str], None]]


def source_pairs(source: Source, root: Path, part: Part, **how: Unpack[Reading]) -> Pairs:
    """Pairs of a part of a source; variants are of patches to train on alone.

    Args:
        source: of folders or of made surfaces.
        root: of all sources.
        part: what is held out is ``test``; the rest is ``fit`` and ``validation``.
        how: see :class:`Reading`.

    Raises:
        GeomoeError: no image, or images that cannot be used.
    """
    scale, bands = how["scale"], how["bands"]
    if source.made:
        return MadePairs(source.made, scale, bands, source.degradation)
    least = how["patch"] * scale
    read = read_part(
        source, root, part, bands=bands, validation=how["validation"], least=least,
        skip=how.get("skip", False), max_pixels=how.get("max_pixels", MAX_PIXELS),
        say=how.get("say", lambda line: None),
    )  # fmt: skip
    images = [image for _, image in read]
    if not images:
        raise GeomoeError(
            f"source {source.name}: no image is left for its part {part}; it needs more images, or other "
            "shares of validation and held_out"
        )
    if part == "fit":
        images = [mirror_to(image, least) for image in images]
    try:
        variants = source.variants if part == "fit" else None
        return ImagePairs(images, scale, source.degradation, variants, source.known)
    except GeomoeError as error:
        raise GeomoeError(f"source {source.name}: {error}") from error


def mixed_pairs(sources: Sequence[Source], root: Path, part: Part, **how: Unpack[Reading]) -> MixedPairs:
    """Pairs of a part of all sources that have a share; see :func:`source_pairs`."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise GeomoeError(
            f"data.sources: two are called {max(names, key=names.count)!r}; give each a name of its own"
        )
    used = [source for source in sources if source.share > 0]
    if not used:
        raise GeomoeError("data.sources: no source has a share above 0")
    return MixedPairs([(source_pairs(source, root, part, **how), source.share) for source in used])
