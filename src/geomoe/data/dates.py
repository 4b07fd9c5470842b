"""Images of one place at two dates, with what changed: ``NAME_1``, ``NAME_2`` and ``NAME_gt``.

An image may be of one sensor before and of another one after. Its bands are those of the file; a PNG or JPEG
of greys is one band, whether the file stores it once or as three equal colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geomoe.data.images import IMAGE_SUFFIXES, MAX_PIXELS, read_picture
from geomoe.data.legend import Legend
from geomoe.data.stacks import read_stack
from geomoe.errors import GeomoeError

__all__ = ["CHANGE", "DATES", "Dated", "Pair", "dated_files", "read_dates"]

DATES = ("before", "after")
"""What a model calls the dates; as scenes of two dates do, whose module wants rasterio."""

CHANGE = Legend(("unchanged", "changed"), (0, 1), ("#d9d9d9", "#d7301f"), ignored=None)
"""What a truth says of each pixel."""

_ENDS = ("_1", "_2", "_gt")
_TIFF = (".tif", ".tiff")


@dataclass(frozen=True)
class Dated:
    """The files of a pair.

    Attributes:
        before: image of the first date.
        after: image of the second date.
        truth: where there was a change.
        name: of the pair, below the folder that was given.
    """

    before: Path
    after: Path
    truth: Path
    name: str


@dataclass(frozen=True, eq=False)
class Pair:
    """Two dates on one grid.

    Attributes:
        name: of the pair.
        data: ``[C, H, W]`` float32 in the units of the files, the bands of the first date first; 0 where
            there is no measurement.
        present: ``[2, H, W]`` bool, where each date has all of its bands.
        changed: ``[H, W]`` uint8, 0 or 1.
        bands: of each date.
    """

    name: str
    data: NDArray[np.float32]
    present: NDArray[np.bool_]
    changed: NDArray[np.uint8]
    bands: tuple[int, int]


def dated_files(root: Path) -> list[Dated]:
    """Pairs below ``root``, sorted; none if no file there is a truth.

    Raises:
        GeomoeError: a pair that lacks one of its three files, or has two for one of them.
    """
    found: dict[Path, dict[str, Path]] = {}
    for path in root.rglob("*"):
        end = next((end for end in _ENDS if path.stem.endswith(end)), None)
        if end is None or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        files = found.setdefault(path.with_name(path.stem.removesuffix(end)), {})
        if end in files:
            raise GeomoeError(f"{files[end]} and {path.name} are both {path.stem}; keep one of them")
        files[end] = path
    if not any("_gt" in files for files in found.values()):
        return []
    for key, files in found.items():
        if missing := [end for end in _ENDS if end not in files]:
            raise GeomoeError(f"the pair {key} has no {key.name}{missing[0]}; a pair is three images")
    return [
        Dated(files["_1"], files["_2"], files["_gt"], key.relative_to(root).as_posix())
        for key, files in sorted(found.items())
    ]


def read_dates(
    listed: Sequence[Dated], sensors: Mapping[str, int] | None = None, max_pixels: int = MAX_PIXELS
) -> list[Pair]:
    """Pairs as stacks of the bands of both dates.

    Each date has as many bands as the pair that has the most of them then; one band of another pair is taken
    as often as that.

    Args:
        listed: one pair or more.
        sensors: bands of the first and of the second date, in this order, in place of that.
        max_pixels: that an image may have.

    Raises:
        GeomoeError: files that cannot be read, dates that differ in size or place, or numbers of bands that
            no repetition of one makes alike.
    """
    if sensors and len(sensors) != len(DATES):
        raise GeomoeError(
            f"data.sensors={dict(sensors)}: expected the numbers of bands of two dates, such as "
            "{before: 1, after: 3}"
        )
    read = [_read(one, max_pixels) for one in listed]
    wanted = list((sensors or {}).values()) or [max(len(dates[i].data) for dates in read) for i in (0, 1)]
    return [_pair(one, dates, wanted) for one, dates in zip(listed, read, strict=True)]


class _Image(NamedTuple):
    path: Path
    data: NDArray[np.float32]
    """``[C, H, W]``"""
    valid: NDArray[np.bool_]


def _pair(one: Dated, images: Sequence[_Image], wanted: Sequence[int]) -> Pair:
    before, after, truth = images
    for image in (after, truth):
        if image.valid.shape != before.valid.shape:
            (high, wide), (height, width) = image.valid.shape, before.valid.shape
            raise GeomoeError(
                f"{image.path} has {wide} x {high} pixels, {one.before.name} {width} x {height}; the dates "
                "of a pair and its truth lie on one grid"
            )
    if len(truth.data) > 1:
        raise GeomoeError(f"{truth.path} has colours; expected black where nothing changed, else white")
    stacked = [_repeated(image, number) for image, number in zip((before, after), wanted, strict=True)]
    changed = (truth.data[0] > max(float(truth.data.max()), 1.0) / 2).astype(np.uint8)
    present = np.stack([before.valid, after.valid])
    return Pair(one.name, np.concatenate(stacked), present, changed, (wanted[0], wanted[1]))


def _read(one: Dated, max_pixels: int) -> list[_Image]:
    """Both dates and the truth."""
    dates = (one.before, one.after)
    if all(path.suffix.lower() in _TIFF for path in dates):
        stack = read_stack(dates, max_pixels)  # which refuses those of unlike grids
        parts = np.split(stack.data, [stack.bands[0]])
        read = [_Image(*each) for each in zip(dates, parts, stack.present, strict=True)]
    else:
        read = [_image(path, max_pixels) for path in dates]
    return [*read, _image(one.truth, max_pixels)]


def _image(path: Path, max_pixels: int) -> _Image:
    if path.suffix.lower() in _TIFF:
        stack = read_stack([path], max_pixels)
        return _Image(path, stack.data, stack.present[0])
    picture = read_picture(path, 3, None, max_pixels)
    data: NDArray[np.float32] = picture.data.numpy().astype(np.float32)
    if (data == data[:1]).all():
        data = data[:1]
    there = np.ones(data.shape[1:], bool) if picture.valid is None else picture.valid
    return _Image(path, np.where(there, data, np.float32(0)), there)


def _repeated(image: _Image, number: int) -> NDArray[np.float32]:
    if len(image.data) not in (1, number):
        raise GeomoeError(
            f"{image.path} has {len(image.data)} bands where {number} are wanted; one band alone is repeated"
        )
    return np.repeat(image.data, number, 0) if len(image.data) != number else image.data
