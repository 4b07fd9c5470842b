"""Pairs of low- and high-resolution images, cut and flipped by a stream that can be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geomoe.data.images import to_unit
from geomoe.data.sample import Batch, Sample
from geomoe.data.super_resolution.degradation import Degrader, crop_to_multiple
from geomoe.data.super_resolution.variants import vary
from geomoe.errors import GeomoeError
from geomoe.layers.super_resolution.known import Known
from geomoe.printable import counted

__all__ = [
    "ImagePairs",
    "Pairs",
    "PatchStream",
    "RealPairs",
    "Share",
    "check_compressible",
    "degrade",
    "mirror_to",
]

NOTHING = Known()
"""What is known of an image of which nothing is."""

_AROUND = 4
"""Low-resolution pixels around a patch that are downsampled with it: as far as a kernel reaches, and more."""


def degrade(image: Tensor, scale: int, degradation: Degrader) -> tuple[Tensor, Tensor]:
    """An image ``[C, H, W]`` to ``(low, high)``: high cut to whole multiples of ``scale``.

    Of an image whose bands are all equal, one is downsampled and stands for all, noise included: so does a
    scene of one band come to a model of several.

    A uint8 image gives a uint8 low one where the degradation rounds to 8 bits, else float32. Floats, which
    come from rasters of other types, are never rounded or clipped: at inference they are not either.

    Raises:
        GeomoeError: too small an image, or one that cannot be JPEG where the degradation compresses.
    """
    high = crop_to_multiple(image, scale)
    if not high.numel():
        height, width = image.shape[1:]
        raise GeomoeError(f"an image of {width} x {height} pixels is too small for a scale of {scale}")
    check_compressible(degradation, len(image), image.dtype)
    alike = len(high) > 1 and not degradation.compresses and bool((high[1:] == high[:1]).all())
    shown = to_unit(high[:1] if alike else high)[None]
    if image.dtype != torch.uint8:
        return degradation.unrounded()(shown, scale)[0].expand_as(high[:, ::scale, ::scale]), high
    low = degradation(shown, scale)[0].expand_as(high[:, ::scale, ::scale])
    return (low * 255).round().to(torch.uint8) if degradation.quantise else low, high


def check_compressible(degradation: Degrader, bands: int, dtype: torch.dtype) -> None:
    """Raise GeomoeError for images that cannot be JPEG where the degradation compresses them, if seldom."""
    if degradation.compresses and (dtype != torch.uint8 or bands != 3):
        raise GeomoeError(
            f"{degradation.name} compresses as JPEG, which is for 8-bit images of 3 bands, not for "
            f"{bands} of {str(dtype).removeprefix('torch.')}; choose mtf_noise or blind_float"
        )


def mirror_to(image: Tensor, side: int) -> Tensor:
    """``[C, H, W]`` continued at its bottom and right by mirroring, where it is smaller than ``side``."""
    missing = [max(side - size, 0) for size in image.shape[1:]]
    if not any(missing):
        return image
    return torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect"))


class Pairs(Protocol):
    """What :class:`PatchStream` cuts from."""

    @property
    def sides(self) -> Sequence[int]:
        """The smaller side of each low-resolution image, pixels."""

    def __len__(self) -> int:
        """Number of whole pairs."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """A whole pair in [0, 1]: ``[C, h, w]`` and ``[C, s h, s w]``."""

    def draw(self, rng: np.random.Generator) -> int:
        """Number of the pair that the next patch is cut from."""

    def known(self, index: int, seed: int) -> Known:
        """What is known of the low image of a pair, if it is made with ``seed``."""

    def cut(
        self, index: int, patch: int, rng: np.random.Generator, seed: int, any_phase: bool
    ) -> tuple[Tensor, Tensor]:
        """Patches of a pair that show the same place, ``[C, patch, patch]`` and ``[C, s patch, s patch]``.

        Args:
            index: of the pair.
            patch: side of the low one.
            rng: draws the place.
            seed: of what is random in making the low one.
            any_phase: whether the high one may begin at any of its pixels; where low images are not made
                but measured, it begins where one of their pixels does.
        """


def _place(rng: np.random.Generator, high: Tensor, side: int, step: int) -> tuple[int, int]:
    """First row and column, multiples of ``step``, of a patch of ``side`` pixels inside ``high``."""
    y = step * int(rng.integers((high.shape[1] - side) // step + 1))
    x = step * int(rng.integers((high.shape[2] - side) // step + 1))
    return y, x


def inner(low: Tensor, high: Tensor, starts: Sequence[int], patch: int, scale: int) -> tuple[Tensor, Tensor]:
    """The patches of both images that begin at low-resolution row and column ``starts``."""
    y, x = starts
    s = scale
    return (
        low[:, y : y + patch, x : x + patch],
        high[:, y * s : (y + patch) * s, x * s : (x + patch) * s],
    )


class RealPairs(Dataset[tuple[Tensor, Tensor]]):
    """Pairs that two sensors measured: nothing is downsampled, and patches lie on the low image's grid.

    Args:
        pairs: ``(low, high)`` in [0, 1], ``[C, h, w]`` and ``[C, s h, s w]``; uint8 is divided by 255.
        scale: of all of them.
    """

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]], scale: int) -> None:
        self.pairs, self.scale = pairs, scale

    @property
    def sides(self) -> Sequence[int]:
        """The smaller side of each low-resolution image, pixels."""
        return [min(low.shape[1:]) for low, _ in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        low, high = self.pairs[index]
        return to_unit(low), to_unit(high)

    def draw(self, rng: np.random.Generator) -> int:
        """Any, each as likely as the others."""
        return int(rng.integers(len(self)))

    def known(self, index: int, seed: int) -> Known:
        """Nothing."""
        return Known()

    def cut(
        self, index: int, patch: int, rng: np.random.Generator, seed: int, any_phase: bool
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`Pairs.cut`; ``seed`` and ``any_phase`` mean nothing here."""
        low, high = self.pairs[index]
        return inner(low, high, _place(rng, low, patch, 1), patch, self.scale)


class ImagePairs(RealPairs):
    """Pairs whose low image is made from the high one, held in memory.

    Args:
        images: ``[C, H, W]``, uint8 or float32 in about [0, 1].
        scale: of all of them.
        degradation: makes the low ones.
        variants: shares of patches that are cut from a version of the image; see
            :data:`geomoe.data.super_resolution.variants.VARIANTS`. Whole pairs are of the images as they are.
        known: of all low images: their sensor and ground sampling distance.
    """

    def __init__(
        self,
        images: Sequence[Tensor],
        scale: int,
        degradation: Degrader,
        variants: Mapping[str, float] | None = None,
        known: Known = NOTHING,
    ) -> None:
        for image in images:
            # Of all that may be drawn: a patch that cannot be made would end the training.
            check_compressible(degradation, len(image), image.dtype)
        pairs = [degrade(image, scale, degradation.drawn(i)) for i, image in enumerate(images)]
        super().__init__(pairs, scale)
        self.of_all, self.degradation, self.variants = known, degradation, variants or {}

    def known(self, index: int, seed: int) -> Known:
        """By what degradation it is made, and what is known of all images."""
        return self.degradation.drawn(seed).known(self.of_all)

    def cut(
        self, index: int, patch: int, rng: np.random.Generator, seed: int, any_phase: bool
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`Pairs.cut`; of any phase, the patch is downsampled by itself, with its surroundings."""
        low, high = self.pairs[index]
        s = self.scale
        y, x = _place(rng, high, patch * s, 1 if any_phase else s)
        if any_phase:
            return self.made_small(high, y, x, patch, rng, seed)
        return inner(low, high, (y // s, x // s), patch, s)

    def made_small(
        self, high: Tensor, y: int, x: int, patch: int, rng: np.random.Generator, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The patch of ``high``, or of a variant of it, that begins at pixel (y, x); neighbours are seen."""
        s = self.scale
        spans, starts = [], []
        for start, size in ((y, high.shape[1]), (x, high.shape[2])):
            before = min(start // s, _AROUND)
            after = min((size - start) // s - patch, _AROUND)
            spans.append(slice(start - before * s, start + (patch + after) * s))
            starts.append(before)
        region = vary(high[:, spans[0], spans[1]], self.variants, rng)
        return inner(*degrade(region, s, self.degradation.drawn(seed)), starts, patch, s)


class PatchStream(Dataset[Sample]):
    """Sample i of an endless stream of random patches; the same i gives the same patch, always.

    Nothing depends on what was drawn before, so a run that is resumed at sample i continues with the
    patches that it would have seen.

    A high-resolution patch begins at any pixel and is downsampled by itself, with its surroundings. Patches
    cut from images that were downsampled as a whole would all share one phase of the low-resolution grid, one
    in ``scale * scale``, and a long training memorises them. Of real pairs both are cut, on the grid of the
    low-resolution image.

    Args:
        pairs: whole images to cut from.
        patch: side of a low-resolution patch.
        scale: of the pairs.
        seed: of the stream.
        start, length: the samples ``start .. start + length - 1`` are offered.
        augment: any phase of the grid; flips and transposition, each with probability 1/2.
        rank, world: of the ``length * world`` samples from ``start``, every ``world``-th, from ``rank``. A
            batch of b in each of ``world`` processes holds the samples that b times ``world`` in one would.
        forget: if given, samples have a ``known``, of which each fact is dropped with this probability.
    """

    def __init__(
        self,
        pairs: Pairs,
        patch: int,
        scale: int,
        seed: int,
        start: int,
        length: int,
        augment: bool = True,
        rank: int = 0,
        world: int = 1,
        forget: float | None = None,
    ) -> None:
        too_small = sum(side < patch for side in pairs.sides)
        if too_small:
            raise GeomoeError(
                f"patch_size={patch}: too large for {counted(too_small, 'image')} at a scale of 1/{scale}"
            )
        self.pairs, self.patch, self.scale = pairs, patch, scale
        self.seed, self.start, self.length, self.augment = seed, start, length, augment
        self.rank, self.world, self.forget = rank, world, forget

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        number = (self.seed, self.start + index * self.world + self.rank)
        rng = np.random.default_rng(number)
        # Its own sequence: what a degradation draws must not move the patches.
        drawn = int(np.random.SeedSequence(number, spawn_key=(0,)).generate_state(1)[0])
        pair = self.pairs.draw(rng)
        low, high = self.pairs.cut(pair, self.patch, rng, seed=drawn, any_phase=self.augment)
        if self.augment:
            flips = [dim for dim in (1, 2) if rng.random() < 0.5]
            low, high = low.flip(flips), high.flip(flips)
            if rng.random() < 0.5:
                low, high = low.transpose(1, 2), high.transpose(1, 2)
        sample = {"image": to_unit(low).contiguous(), "target": to_unit(high).contiguous()}
        if self.forget is None:
            return sample
        chance = np.random.default_rng(np.random.SeedSequence(number, spawn_key=(1,)))
        known = self.pairs.known(pair, drawn).forgetting(chance, self.forget)
        return {**sample, "known": torch.tensor(known.encoded())}


class Share(Dataset[Batch]):
    """The whole pairs that one of several processes looks at, as batches of one: each pair in one process.

    All shares are of one length, so that processes which wait for one another do as much. Where a share has
    no further pair, there is an empty batch.

    Args:
        pairs: whole pairs.
        rank, world: every ``world``-th of them, from ``rank``.
        informed: whether batches have a ``known``.
    """

    def __init__(self, pairs: Pairs, rank: int = 0, world: int = 1, informed: bool = False) -> None:
        self.pairs, self.rank, self.world, self.informed = pairs, rank, world, informed

    def __len__(self) -> int:
        return -(-len(self.pairs) // self.world)

    def __getitem__(self, index: int) -> Batch:
        """A batch of one pair, or of none."""
        number = index * self.world + self.rank
        some = 1 if number < len(self.pairs) else 0
        low, high = self.pairs[number if some else 0]
        batch = {"image": low[None][:some], "target": high[None][:some]}
        if self.informed:
            place = number if some else 0
            batch["known"] = Known.batch([self.pairs.known(place, place)])[:some]
        return batch
