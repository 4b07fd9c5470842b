"""Images whose pixels have classes, read whole from a folder: of whatever kind it is, before it is split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomoe.data.cubes import find_cube, read_cube
from geomoe.data.datasets import DataSet, find_data_set
from geomoe.data.dates import CHANGE, DATES, Dated, dated_files, read_dates
from geomoe.data.idtrees import Taxa, read_plots
from geomoe.data.images import MAX_PIXELS, read_picture
from geomoe.data.legend import Legend
from geomoe.data.masks import Masked, masked_files, read_mask
from geomoe.data.split import Part, Shares, items_by_folder
from geomoe.data.stacks import read_stack
from geomoe.errors import GeomoeError

__all__ = ["Labelled", "Reading", "Whole", "read_labelled"]


@dataclass(frozen=True)
class Reading:
    """How a folder is read.

    Attributes:
        bands: channels of images; what stacks several files, cubes, plots and pairs have their own.
        images: folder of images below the root, where masks lie in another one; several, whose images of one
            name are stacked band by band. Of plots with crowns ``rgb``, or what the other sensors measured.
        masks: folder of the masks.
        names: of the classes, in the order of their values, of a data set that is not known.
        ignored: value of the pixels whose class is not known; None where every value is a class.
        taxa: what the classes of plots with crowns are.
        stems: that each of these has at least.
        max_pixels: that an image may have; it is looked at before any is decoded.
        sensors: bands of the dates of pairs, in place of what the files have.
    """

    bands: int = 3
    images: str | Sequence[str] = "images"
    masks: str = "masks"
    names: Sequence[str] | None = None
    ignored: int | None = 0
    taxa: Taxa = "species"
    stems: int = 15
    max_pixels: int = MAX_PIXELS
    sensors: Mapping[str, int] = field(default_factory=dict)

    def legend(self, known: DataSet | None, values: NDArray[np.integer]) -> Legend:
        """Of a data set, or of the values that were found."""
        if known is not None and known.legend is not None:
            return known.legend
        return Legend.of_values(np.unique(values).tolist(), self.ignored, self.names)


@dataclass(frozen=True, eq=False)
class Whole:
    """An image with its mask.

    Attributes:
        name: below the root.
        image: ``[C, H, W]``; uint8 or float32.
        mask: ``[H, W]`` int16, classes from 0; :data:`geomoe.data.legend.IGNORED` where none is known.
        valid: ``[H, W]``, where there is a measurement; None if there is one everywhere.
        present: ``[S, H, W]``, where each sensor measured; None if each did wherever it is valid.
        stand: those of one number lie together; None of one that lies alone.
    """

    name: str
    image: Tensor
    mask: Tensor
    valid: NDArray[np.bool_] | None = None
    present: NDArray[np.bool_] | None = None
    stand: int | None = None

    @property
    def folder(self) -> str:
        """In which it lies; empty where that is the root."""
        return "/".join(self.name.split("/")[:-1])


@dataclass(frozen=True, eq=False)
class Labelled:
    """What a folder holds.

    Attributes:
        name: of the data set, or of the folder.
        images: one or more.
        legend: of their masks.
        radiometry: of the images, as cards say it: ``unit``, or ``values`` in the units of the files.
        known: which published data set it is; None for another.
        sensors: whose bands the images stack, by name, with how many, where the data say so.
        names: of the bands, where all images say the same.
        deals: whether whole images can be held out.
        dtypes: of the files, of images that are brought to 0 to 1.
    """

    name: str
    images: Sequence[Whole]
    legend: Legend
    radiometry: str
    known: DataSet | None = None
    sensors: Mapping[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    deals: bool = True
    dtypes: tuple[str, ...] = ()

    def parts(self, shares: Shares, seed: int, left_out: Sequence[str] = ()) -> list[Part]:
        """The part of each image, the same for all of a stand; of the stands of each folder by chance.

        Args:
            shares: that are held out.
            seed: of the draw.
            left_out: folders that are tested on, or names of images.

        Raises:
            GeomoeError: as :func:`geomoe.data.split.items_by_folder`.
        """
        stands = [-1 - i if one.stand is None else one.stand for i, one in enumerate(self.images)]
        folders = {
            stand: one.name if one.name in left_out else one.folder
            for stand, one in zip(stands, self.images, strict=True)
        }
        if unknown := [name for name in left_out if name not in folders.values()]:
            there = sorted({one.folder or one.name for one in self.images})
            raise GeomoeError(f"no folder {unknown[0]!r} can be left out; there are: {', '.join(there)}")
        dealt = items_by_folder(list(folders.values()), shares, seed, left_out)
        parts = dict(zip(folders, dealt, strict=True))
        return [parts[stand] for stand in stands]


def read_labelled(root: Path, how: Reading) -> Labelled:
    """A cube, plots with crowns, pairs of two dates, or images with masks, whichever ``root`` holds.

    Raises:
        GeomoeError: none of them, or files that cannot be used.
    """
    if (cube := find_cube(root)) is not None:
        return _cube(cube, how)
    if (plots := find_data_set(root, "plots")) is not None:
        return _plots(root, plots, how)
    if root.is_dir() and (pairs := dated_files(root)):
        return _pairs(root, find_data_set(root, "dates"), pairs, how)
    known = find_data_set(root, "masks")
    if isinstance(how.images, str):
        return _pictures(root, known, masked_files(root, how.images, how.masks), how)
    return _stacks(root, known, how.images, how)


def _cube(path: Path, how: Reading) -> Labelled:
    cube = read_cube(path)
    legend = how.legend(cube.known, cube.labels)
    image = Whole(cube.name, torch.from_numpy(cube.data), legend.indices(cube.labels, f"{path}"))
    return Labelled(cube.name, [image], legend, "values", cube.known, deals=False)


def _plots(root: Path, known: DataSet, how: Reading) -> Labelled:
    photographs = how.images == "rgb"
    plots, legend = read_plots(root, how.taxa, how.stems, how.max_pixels, photographs)
    images = [
        Whole(
            plot.name, torch.from_numpy(plot.image), legend.indices(plot.labels, plot.name),
            np.any(plot.present, axis=0), plot.present if plot.sensors else None, plot.stand,
        )
        for plot in plots
    ]  # fmt: skip
    units = "unit" if photographs else "values"
    names = ("red", "green", "blue") if photographs else ()
    dtypes = ("uint8",) if photographs else ()
    return Labelled(known.name, images, legend, units, known, plots[0].sensors, names, dtypes=dtypes)


def _pairs(root: Path, known: DataSet | None, listed: Sequence[Dated], how: Reading) -> Labelled:
    pairs = read_dates(listed, how.sensors, how.max_pixels)
    images = [
        Whole(
            pair.name, torch.from_numpy(pair.data), CHANGE.indices(pair.changed, pair.name),
            np.all(pair.present, axis=0), pair.present,  # what one date lacks nobody can compare
        )
        for pair in pairs
    ]  # fmt: skip
    sensors = dict(zip(DATES, pairs[0].bands, strict=True))
    return Labelled(_name(root, known), images, CHANGE, "values", known, sensors)


def _pictures(root: Path, known: DataSet | None, listed: Sequence[Masked], how: Reading) -> Labelled:
    masks, legend = _masks(listed, known, how)
    images, called, dtypes = [], set(), set()
    for one, mask in zip(listed, masks, strict=True):
        picture = read_picture(one.image, how.bands, None, how.max_pixels)
        _expect_alike(one, mask, picture.data.shape[1:])
        called.add(picture.names)
        dtypes.add(picture.dtype)
        images.append(Whole(one.name, picture.data, mask, picture.valid))
    names = called.pop() if len(called) == 1 else ()
    return Labelled(
        _name(root, known), images, legend, "unit", known, names=names, dtypes=tuple(sorted(dtypes))
    )


def _stacks(root: Path, known: DataSet | None, folders: Sequence[str], how: Reading) -> Labelled:
    if len(set(folders)) < len(folders) or len(folders) < 2:
        raise GeomoeError(f"data.images={list(folders)}: expected two folders or more, each once")
    listed = [masked_files(root, folder, how.masks) for folder in folders]
    masks, legend = _masks(listed[0], known, how)
    images, bands = [], set()
    for files, mask in zip(zip(*listed, strict=True), masks, strict=True):
        stack = read_stack([one.image for one in files], how.max_pixels)
        _expect_alike(files[0], mask, stack.data.shape[1:])
        bands.add(stack.bands)
        valid: NDArray[np.bool_] = np.any(stack.present, axis=0)
        images.append(Whole(files[0].name, torch.from_numpy(stack.data), mask, valid, stack.present))
    if len(bands) > 1:
        raise GeomoeError(f"images of {root} have unlike numbers of bands: {sorted(bands)}")
    sensors = dict(zip(folders, bands.pop(), strict=True))
    return Labelled(_name(root, known), images, legend, "values", known, sensors)


def _masks(listed: Sequence[Masked], known: DataSet | None, how: Reading) -> tuple[list[Tensor], Legend]:
    found = [read_mask(one.mask, how.max_pixels) for one in listed]
    legend = how.legend(known, np.concatenate([np.unique(mask) for mask in found]))
    return [legend.indices(values, f"{one.mask}") for one, values in zip(listed, found, strict=True)], legend


def _expect_alike(one: Masked, mask: Tensor, shape: Sequence[int]) -> None:
    if tuple(mask.shape) != tuple(shape):
        raise GeomoeError(f"{one.mask} has {list(mask.shape)} pixels, its image {list(shape)}")


def _name(root: Path, known: DataSet | None) -> str:
    return known.name if known else root.resolve().name
