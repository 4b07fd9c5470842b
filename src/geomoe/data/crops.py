"""Images with masks, held in memory: a stream of crops that can be resumed, and whole images to score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from geomoe.data.images import to_unit
from geomoe.data.legend import IGNORED
from geomoe.data.places import Places
from geomoe.data.sample import Batch, Sample
from geomoe.data.split import Part
from geomoe.errors import GeomoeError
from geomoe.layers.sensors import by_band, presence

__all__ = ["CropStream", "Draw", "LabelledImage", "WholeImages", "band_statistics", "class_counts", "shown"]

Draw = Literal["pixels", "classes"]
"""What is drawn to lie in a crop: any pixel that has a class, or first a class, all as likely."""


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image with a class for some or all of its pixels.

    Attributes:
        name: of it.
        image: ``[C, H, W]``; uint8, which models see over 255, or float32.
        mask: ``[H, W]`` int16, classes from 0; :data:`geomoe.data.legend.IGNORED` where none is known.
        places: to which part each pixel belongs.
        valid: ``[H, W]``, where there is a measurement; None if there is one everywhere.
        sensors: whose bands the image stacks, by name, with how many; empty where they are of one.
        present: ``[S, H, W]``, where each of them measured; None if each did wherever it is ``valid``.
        domain: of several places the one that the image is of, from 0; None where there are not several.
    """

    name: str
    image: Tensor
    mask: Tensor
    places: Places
    valid: NDArray[np.bool_] | None = None
    sensors: Mapping[str, int] = field(default_factory=dict)
    present: NDArray[np.bool_] | None = None
    domain: int | None = None

    def of_sensors(self, seen: Tensor) -> Tensor:
        """``[S, H, W]`` bool, what each sensor measured of what is ``seen``, ``[H, W]``."""
        known = None if self.present is None else torch.from_numpy(self.present)[None]
        return presence(self.image[None], self.sensors, known, seen[None])[0]

    def of_bands(self, present: Tensor) -> Tensor:
        """``[S, H, W]`` as ``[C, H, W]``; of one sensor ``[1, H, W]``."""
        return by_band(present, self.sensors) if self.sensors else present

    def measured(self, part: Part) -> Tensor:
        """``[H, W]`` bool, the pixels of a part that were measured."""
        mine = self.places.of(part)
        return torch.from_numpy(mine if self.valid is None else mine & self.valid)

    def classes(self, part: Part) -> Tensor:
        """``mask``, ignored but where the part is."""
        return self.mask.masked_fill(~self.measured(part), IGNORED)

    def seen(self, part: Part) -> Tensor:
        """``[H, W]`` bool, what samples of a part show."""
        mine = self.places.seen(part)
        return torch.from_numpy(mine if self.valid is None else mine & self.valid)


def class_counts(images: Sequence[LabelledImage], part: Part, classes: int) -> Tensor:
    """``[images, classes]`` int64, pixels of a part in each image that have each class."""
    counted = [(one.classes(part).flatten().long() + 1).bincount(minlength=classes + 1) for one in images]
    return torch.stack(counted)[:, 1:]


def band_statistics(images: Sequence[LabelledImage]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each band over what is trained on, and nothing else.

    In the units in which models see the images, to six digits; the deviation of a band without any is 1.

    Raises:
        GeomoeError: nothing to train on.
    """
    number, total, squares = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    for one in images:
        seen = one.measured("fit")
        there = one.of_bands(one.of_sensors(seen))[:, seen]  # [C or 1, n]
        pixels = to_unit(one.image)[:, seen].double().masked_fill(~there, 0)
        number = number + there.sum(1)
        total, squares = total + pixels.sum(1), squares + pixels.square().sum(1)
    if not number.any():
        raise GeomoeError("no pixel of any image is there to train on")
    mean = total / number.clamp_min(1)
    deviation = (squares / number.clamp_min(1) - mean.square()).clamp_min(0).sqrt()
    deviation = torch.where(deviation > 1e-6 * mean.abs() + 1e-12, deviation, 1.0)
    return _rounded(mean), _rounded(deviation)


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values.tolist())


def shown(one: LabelledImage, part: Part, fill: Sequence[float]) -> Sample:
    """The whole image as a sample of a part.

    What the part must not show, and what was not measured, has the value ``fill`` in each band, is not
    ``valid`` and has no class.
    """
    seen = one.seen(part)
    hidden = torch.tensor(fill, dtype=torch.float32).view(-1, 1, 1)
    present = one.of_sensors(seen)
    image = torch.where(one.of_bands(present), to_unit(one.image), hidden)
    sample = {"image": image, "mask": one.classes(part).long(), "valid": seen}
    return {**sample, "present": present} if one.sensors else sample


class CropStream(Dataset[Sample]):
    """Sample i of an endless stream of crops; the same i gives the same crop, always.

    Each has at least one pixel with a class of the training part. Which place a crop is of is said here, in
    training, alone: whoever is shown a new image has to find out. Crops are turned in one of the eight ways
    that pixels stay pixels. Smaller images are filled up with pixels that are not valid.

    Args:
        images: with classes.
        fill: value of each band where nothing may be shown, or nothing was measured.
        patch: side of a crop, pixels.
        draw: see :data:`Draw`.
        seed: of the stream.
        start, length: the samples ``start .. start + length * world - 1`` are offered,
        rank, world: of them every ``world``-th, from ``rank``.
        centre: whether the pixel that was drawn is the middle of its crop, and the only one with a class, for
            networks that say of a patch what its middle shows; else it lies anywhere in the crop.
        missing: share of the crops that lack some of their sensors, though never all; which, is drawn.

    Raises:
        GeomoeError: no pixel with a class to train on.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        fill: Sequence[float],
        patch: int,
        draw: Draw,
        seed: int,
        start: int,
        length: int,
        rank: int = 0,
        world: int = 1,
        centre: bool = False,
        missing: float = 0.0,
    ) -> None:
        self.images, self.fill, self.patch, self.seed = images, torch.tensor(fill).view(-1, 1, 1), patch, seed
        self.centre, self.missing = centre, missing
        self.start, self.length, self.rank, self.world = start, length, rank, world
        classes = 1 + max(int(one.mask.max()) for one in images)
        counts = class_counts(images, "fit", max(classes, 1)).double()
        if not counts.any():
            raise GeomoeError("no pixel with a class is there to train on")
        if draw == "classes":
            counts = counts / counts.sum(0).clamp_min(1)
        self.chances = (counts / counts.sum()).numpy()  # [images, classes]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, self.start + index * self.world + self.rank))
        drawn = rng.choice(self.chances.size, p=self.chances.ravel())
        number, label = divmod(int(drawn), self.chances.shape[1])
        one = self.images[number]
        pixels = (one.classes("fit") == label).flatten().nonzero().squeeze(1)
        place = divmod(int(pixels[rng.integers(len(pixels))]), one.mask.shape[1])
        if self.centre:
            corner = [at - self.patch // 2 for at in place]
        else:
            corner = [
                min(max(at - int(rng.integers(self.patch)), 0), max(size - self.patch, 0))
                for at, size in zip(place, one.mask.shape, strict=True)
            ]
        sample = self._cut(one, corner)
        turns = [dim for dim in (-2, -1) if rng.random() < 0.5], bool(rng.random() < 0.5)
        turned = {name: _turned(value, *turns) for name, value in sample.items()}
        if one.sensors and rng.random() < self.missing:
            pattern = int(rng.integers(1, 2 ** len(one.sensors) - 1))  # of the sensors that stay, in bits
            stays = torch.tensor([bool(pattern >> i & 1) for i in range(len(one.sensors))])
            turned["present"] &= stays[:, None, None]
            turned["image"] = torch.where(one.of_bands(turned["present"]), turned["image"], self.fill)
        return turned if one.domain is None else {**turned, "domain": torch.tensor(one.domain)}

    def _cut(self, one: LabelledImage, corner: Sequence[int]) -> Sample:
        inside = [
            slice(max(at, 0), min(at + self.patch, size))
            for at, size in zip(corner, one.mask.shape, strict=True)
        ]
        sides = [  # of what is missing: left, right, top, bottom, as F.pad wants them
            side
            for at, part in zip(reversed(corner), reversed(inside), strict=True)
            for side in (part.start - at, at + self.patch - part.stop)
        ]
        rows, columns = inside
        seen = one.seen("fit")
        present = F.pad(one.of_sensors(seen)[:, rows, columns], sides)
        seen = F.pad(seen[rows, columns], sides)
        shown = F.pad(to_unit(one.image[:, rows, columns]), sides)
        image = torch.where(one.of_bands(present), shown, self.fill)
        mask = F.pad(one.classes("fit")[rows, columns].long(), sides, value=IGNORED)
        if self.centre:
            middle = self.patch // 2
            known = int(mask[middle, middle])
            mask = torch.full_like(mask, IGNORED)
            mask[middle, middle] = known
        sample = {"image": image, "mask": mask, "valid": seen}
        return {**sample, "present": present} if one.sensors else sample


def _turned(value: Tensor, flips: Sequence[int], transposed: bool) -> Tensor:
    value = value.flip(tuple(flips))
    return (value.transpose(-2, -1) if transposed else value).contiguous()


class WholeImages(Dataset[Batch]):
    """Batches of one whole image that has a class in a part; each image in one of several processes.

    All shares are of one length; where a share has no further image, there is an empty batch.

    Args:
        images: with classes.
        part: whose.
        fill: as of :class:`CropStream`.
        rank, world: every ``world``-th of them, from ``rank``.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        part: Part,
        fill: Sequence[float],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.images = [one for one in images if (one.classes(part) != IGNORED).any()]
        self.part, self.fill, self.rank, self.world = part, fill, rank, world

    def __len__(self) -> int:
        return -(-len(self.images) // self.world)

    def __getitem__(self, index: int) -> Batch:
        number = index * self.world + self.rank
        some = 1 if number < len(self.images) else 0
        sample = shown(self.images[number if some else 0], self.part, self.fill)
        return {name: value[None][:some] for name, value in sample.items()}
