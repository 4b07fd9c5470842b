"""Pairs of low- and high-resolution images, cut and flipped by a stream that can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geomoe.data.degradation import Degradation, crop_to_multiple
from geomoe.data.images import to_unit
from geomoe.errors import GeomoeError

__all__ = ["ImagePairs", "PatchStream", "degrade", "mirror_to"]

_AROUND = 4
"""Low-resolution pixels around a patch that are made small with it: as far as a kernel reaches, and more."""


def degrade(image: Tensor, scale: int, degradation: Degradation) -> tuple[Tensor, Tensor]:
    """An image ``[C, H, W]`` to ``(low, high)``: high cut to whole multiples of ``scale``.

    A uint8 image gives a uint8 low one where the degradation rounds to 8 bits, else float32. Floats, which
    come from rasters of other types, are never rounded or clipped: at inference they are not either.
    """
    high = crop_to_multiple(image, scale)
    if not high.numel():
        height, width = image.shape[1:]
        raise GeomoeError(f"an image of {width} x {height} pixels is too small for a scale of {scale}")
    if image.dtype != torch.uint8:
        return replace(degradation, quantise=False)(to_unit(high)[None], scale)[0], high
    low = degradation(to_unit(high)[None], scale)[0]
    return (low * 255).round().to(torch.uint8) if degradation.quantise else low, high


def mirror_to(image: Tensor, side: int) -> Tensor:
    """``[C, H, W]`` continued at its bottom and right by mirroring, where it is smaller than ``side``."""
    missing = [max(side - size, 0) for size in image.shape[1:]]
    if not any(missing):
        return image
    return torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect"))


class ImagePairs(Dataset[tuple[Tensor, Tensor]]):
    """Whole images as ``(low, high)`` in [0, 1], held in memory."""

    def __init__(self, images: Sequence[Tensor], scale: int, degradation: Degradation) -> None:
        self.scale, self.degradation = scale, degradation
        self.pairs = [degrade(image, scale, degradation) for image in images]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        low, high = self.pairs[index]
        return to_unit(low), to_unit(high)


class PatchStream(Dataset[tuple[Tensor, Tensor]]):
    """Sample i of an endless stream of random patches; the same i gives the same patch, always.

    Nothing depends on what was drawn before, so a run that is resumed at sample i goes on with the
    patches that it would have seen.

    A high-resolution patch begins at any pixel and is made small by itself, with what lies around it. Patches
    cut from images that were made small whole would all share one phase of the low-resolution grid, one in
    ``scale * scale``, and a long training learns the images by heart.

    Args:
        pairs: whole images to cut from.
        patch: side of a low-resolution patch.
        scale: of the pairs.
        seed: of the stream.
        start, length: the samples ``start .. start + length - 1`` are offered.
        augment: any phase of the grid; flips and transposition, each with probability 1/2.
    """

    def __init__(
        self,
        pairs: ImagePairs,
        patch: int,
        scale: int,
        seed: int,
        start: int,
        length: int,
        augment: bool = True,
    ) -> None:
        too_small = [low.shape for low, _ in pairs.pairs if min(low.shape[1:]) < patch]
        if too_small:
            raise GeomoeError(
                f"patch_size={patch}: {len(too_small)} images are smaller than that at a scale of 1/{scale}"
            )
        self.pairs, self.patch, self.scale = pairs, patch, scale
        self.seed, self.start, self.length, self.augment = seed, start, length, augment

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, self.start + index))
        low, high = self.pairs.pairs[rng.integers(len(self.pairs))]
        s, p = self.scale, self.patch
        step = 1 if self.augment else s
        y = step * int(rng.integers((high.shape[1] - p * s) // step + 1))
        x = step * int(rng.integers((high.shape[2] - p * s) // step + 1))
        cut_high = high[:, y : y + p * s, x : x + p * s]
        if self.augment:
            cut_low = self._made_small(high, y, x)
        else:
            cut_low = low[:, y // s : y // s + p, x // s : x // s + p]
        if self.augment:
            flips = [dim for dim in (1, 2) if rng.random() < 0.5]
            cut_low, cut_high = cut_low.flip(flips), cut_high.flip(flips)
            if rng.random() < 0.5:
                cut_low, cut_high = cut_low.transpose(1, 2), cut_high.transpose(1, 2)
        return to_unit(cut_low).contiguous(), to_unit(cut_high).contiguous()

    def _made_small(self, high: Tensor, y: int, x: int) -> Tensor:
        """The low-resolution patch of ``high`` that begins at pixel (y, x), its neighbours seen."""
        s, p = self.scale, self.patch
        spans, starts = [], []
        for start, size in ((y, high.shape[1]), (x, high.shape[2])):
            before = min(start // s, _AROUND)
            after = min((size - start) // s - p, _AROUND)
            spans.append(slice(start - before * s, start + (p + after) * s))
            starts.append(before)
        low, _ = degrade(high[:, spans[0], spans[1]], s, self.pairs.degradation)
        return low[:, starts[0] : starts[0] + p, starts[1] : starts[1] + p]
