"""The data module of masked autoencoding: crops of images, held in memory, that need no labels."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from geomoe.data.class_folders import labelled_files
from geomoe.data.datasets import find_data_set
from geomoe.data.hidden import HiddenBatches, HiddenStream
from geomoe.data.images import MAX_PIXELS, find_images, read_picture, sift, to_unit
from geomoe.data.sample import Batch, Sample
from geomoe.data.split import Part, every
from geomoe.errors import GeomoeError, expect
from geomoe.printable import counted
from geomoe.tasks.masked_autoencoding import MaskedAutoencoding
from geomoe.tasks.registry import register
from geomoe.tasks.stream import StreamData

__all__ = ["MaskedAutoencodingData"]

_DIGITS = 4
_CROPS = 8
"""Of each image that is validated on."""


class MaskedAutoencodingData(StreamData):
    """Crops of images, most of whose squares are hidden.

    Of a data set with labels that is known, the test images are left alone.

    Args:
        root: folder of all ``folders``.
        folders: of images, each with the share of crops that is cut from it.
        size: side of a crop once it has been brought to the model's grid, pixels.
        zoom: largest side of a crop over ``size``.
        cell: side of the squares that are hidden or shown, the model's patch; divides ``size``.
        hidden: share of the squares that is hidden.
        bands: channels of the images.
        validation: share of the images of each folder of more than one that is validated on.
        skip_corrupt: whether images that cannot be read are left out; also ``--skip-corrupt``.
        max_pixels: that an image may have; it is looked at before any is decoded.
        stream: see :class:`geomoe.tasks.stream.StreamData`.
    """

    def __init__(
        self,
        root: str,
        folders: dict[str, float] | None = None,
        size: int = 64,
        zoom: float = 4.0,
        cell: int = 8,
        hidden: float = 0.75,
        bands: int = 3,
        validation: float = 0.05,
        skip_corrupt: bool = False,
        max_pixels: int = MAX_PIXELS,
        **stream: Any,
    ) -> None:
        super().__init__(**stream)
        for name, value in (("size", size), ("cell", cell), ("bands", bands), ("max_pixels", max_pixels)):
            expect(value >= 1, f"data.{name}", value, "a whole number from 1")
        expect(size % cell == 0 and size > cell, "data.cell", cell, f"a divisor of data.size={size} below it")
        expect(zoom >= 1, "data.zoom", zoom, "1 or more")
        expect(0 < hidden < 1, "data.hidden", hidden, "a share between 0 and 1")
        expect(0 < validation < 1, "data.validation", validation, "a share between 0 and 1")
        self.folders = {"": 1.0} if folders is None else folders
        shares = self.folders.values()
        expect(bool(shares) and min(shares) > 0, "data.folders", folders, "folders with shares above 0")
        self.root, self.size, self.zoom, self.cell, self.hidden = Path(root), size, zoom, cell, hidden
        self.bands, self.validation, self.skip_corrupt, self.max_pixels = (
            bands, validation, skip_corrupt, max_pixels
        )  # fmt: skip
        self._called: set[tuple[str, ...]] = set()
        self._dtypes: set[str] = set()

    def _files(self, folder: Path, part: Part) -> list[Path]:
        if find_data_set(folder, "labels"):
            return [one.path for one in labelled_files(folder, part)]
        fit, validation = every(find_images(folder), self.validation)
        return fit if part == "fit" else validation

    def _read(self, part: Part) -> dict[str, list[Tensor]]:
        """Images ``[bands, H, W]`` by their folders, of those that have any."""

        def read(path: Path) -> Tensor:
            picture = read_picture(path, self.bands, None, self.max_pixels)
            self._called.add(picture.names)
            self._dtypes.add(picture.dtype)
            return picture.data

        listed = {name: self._files(self.root / name, part) for name in self.folders}
        return {
            name: [image for _, image in sift(files, read, self.skip_corrupt, warnings.warn)]
            for name, files in listed.items()
            if files
        }

    @cached_property
    def _fit(self) -> dict[str, list[Tensor]]:
        return self._read("fit")

    @cached_property
    def _held(self) -> dict[str, list[Tensor]]:
        if found := self._read("validation"):
            return found
        raise GeomoeError(f"{self.root} holds no folder of two images or more, one of them to validate on")

    def _stream(self, images: dict[str, list[Tensor]], start: int, length: int, *share: int) -> HiddenStream:
        shares = [self.folders[name] for name in images]
        cut = (self.size, self.zoom, self.cell, self.hidden)
        return HiddenStream(list(images.values()), shares, *cut, self.seed, start, length, *share)

    @cached_property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each band over the training images, each folder by its share."""
        total = sum(self.folders[name] for name in self._fit)
        mean, square = torch.zeros(self.bands), torch.zeros(self.bands)
        for name, images in self._fit.items():
            share = self.folders[name] / total / len(images)
            for image in images:
                shown = to_unit(image).flatten(1)
                mean += share * shown.mean(1)
                square += share * shown.square().mean(1)
        std = (square - mean.square()).clamp_min(0).sqrt()
        least = 10**-_DIGITS
        return (
            tuple(round(value, _DIGITS) for value in mean.tolist()),
            tuple(max(round(value, _DIGITS), least) for value in std.tolist()),
        )

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each band."""
        return self.statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """The same of the standard deviation."""
        return self.statistics[1]

    @property
    def band_names(self) -> tuple[str, ...]:
        named = self._called - {()}
        return next(iter(named)) if len(named) == 1 else ()

    @property
    def dtypes(self) -> tuple[str, ...]:
        return tuple(sorted(self._dtypes))

    @property
    def recipe(self) -> dict[str, Any]:
        return {"size": self.size, "zoom": self.zoom, "cell": self.cell, "hidden": self.hidden}

    def describe(self, source: str = "") -> dict[str, Any]:
        known = (find_data_set(self.root / name, "labels") for name in self.folders)
        said = [one.said for one in known if one is not None] + ([source] if source else [])
        images = {name: len(held) for name, held in self._fit.items()}
        return {
            "layout": "crops",
            "source": "; ".join(said),
            "split": f"fit: {self.amount()}",
            "images": images,
            "shares": self.folders,
        }

    def amount(self) -> str:
        fit, held = (counted(sum(map(len, part.values())), "image") for part in (self._fit, self._held))
        return f"crops of {fit} to train on, of {held} to validate on"

    def stream(self, start: int, length: int, rank: int, world: int) -> Dataset[Sample]:
        return self._stream(self._fit, start, length, rank, world)

    def held_out(self, rank: int, world: int) -> Dataset[Batch]:
        length = _CROPS * sum(map(len, self._held.values()))
        return HiddenBatches(self._stream(self._held, 0, length), self.batch_size, rank, world)


register(MaskedAutoencoding, MaskedAutoencodingData)
