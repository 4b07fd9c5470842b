"""Leakage: images of one part of a split that another part holds too, and ground that parts share.

Near duplicates are looked for by an image's coarsest cosines, a perceptual hash of 63 numbers. A flip changes
the signs of some and a quarter turn transposes them too: one transform tells all eight. What is alike by them
is compared at full size. Files with a place on Earth are compared by outlines, too. An image without a place
that shows another one's ground shifted by more than some pixels is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.fft import dctn

from geomoe.data.class_folders import labelled_files
from geomoe.data.datasets import find_data_set
from geomoe.data.images import find_images, read_image, to_unit
from geomoe.data.labelled import Reading, read_labelled
from geomoe.data.masks import masked_files
from geomoe.data.split import PARTS, Shares, items_by_folder
from geomoe.errors import GeomoeError

__all__ = ["Item", "Leak", "Leakage", "find_leaks", "outline", "parts_of"]

Kind = Literal["duplicate", "footprint"]

_SIDE, _COARSE = 32, 8
"""Of the small image that is transformed, and of the corner of its cosines that is looked at."""
_ALIKE = 0.85
"""Least cosine between the hashes of near duplicates; by chance it is about 0, of a JPEG nearly 1."""
_CORRELATION, _DETAIL = 0.9, 0.5
"""Least correlation of near duplicates, and of their differences from pixel to pixel: of smooth scenes the
first alone says little."""
_FLAT = 0.5 / 255
"""Standard deviation below which an image holds nothing to be recognised by."""
_SHARED = 0.01
"""Share of the smaller of two footprints from which on they overlap: tiles that touch do not."""
_CHUNK = 512
_PARTS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class Item:
    """An image, its name below the folder that was given, and the part of the split that it belongs to."""

    path: Path
    name: str
    part: str


@dataclass(frozen=True)
class Leak:
    """Two images of unlike parts that show the same.

    Attributes:
        kind: ``duplicate``, or ``footprint``, of which both show a share.
        parts: of the split.
        names: of the images, in the order of ``parts``.
        value: correlation, or share of the smaller footprint, 0 to 1.
        how: what makes the second one of a duplicate the first, such as ``flipped, turned 90``; may be
            nothing.
    """

    kind: Kind
    parts: tuple[str, str]
    names: tuple[str, str]
    value: float
    how: str = ""


@dataclass(frozen=True)
class Leakage:
    """What :func:`find_leaks` found.

    Attributes:
        images: how many were compared, by part.
        leaks: pairs across parts; duplicates first, of each kind the clearest first.
        within: near duplicates that lie in one part, where they count twice and no score is wrong.
        placed: how many images have a place on Earth.
        unread: files that could not be read, each with the reason.
    """

    images: dict[str, int]
    leaks: tuple[Leak, ...]
    within: tuple[Leak, ...]
    placed: int
    unread: tuple[str, ...]


def parts_of(root: Path, test: Path | None = None) -> list[Item]:
    """The images of a data set by the parts in which ``geomoe fit`` and ``evaluate`` take them.

    Those of a published split, or of the usual one of folders of classes; folders called train, validation
    and test where there are such; images with masks, and heights of plots, as they are dealt by default.

    Args:
        root: folder of the data.
        test: a folder of test images apart from it; ``root`` is then all of one part.

    Raises:
        GeomoeError: no folder, or no split that is known.
    """
    if not root.is_dir():
        raise GeomoeError(f"{root} is no folder; leaks are looked for between images in folders")
    if test is not None:
        return [*_below(root, "train"), *_below(test, "test")]
    folders = [(root / n, part) for part, names in _PARTS.items() for n in names if (root / n).is_dir()]
    if len(folders) > 1:
        return [item for folder, part in folders for item in _below(folder, part)]
    if find_data_set(root, "plots") is not None:
        found = read_labelled(root, Reading(stems=1))
        dealt = zip(found.images, found.parts(Shares(), 0), strict=True)
        return [Item(root / "chm" / f"{Path(one.name).name}.tif", one.name, part) for one, part in dealt]
    with suppress(GeomoeError):
        masked = masked_files(root)
        parts = items_by_folder([one.folder for one in masked], Shares(), 0)
        return [Item(one.image, one.name, part) for one, part in zip(masked, parts, strict=True)]
    with suppress(GeomoeError):
        return [Item(one.path, one.name, part) for part in PARTS for one in labelled_files(root, part)]
    raise GeomoeError(
        f"{root} has no split that is known; expected folders of classes, images with masks, or folders "
        "train and test; or give the test images by --test"
    )


def _below(folder: Path, part: str) -> list[Item]:
    return [
        Item(path, f"{folder.name}/{path.relative_to(folder).as_posix()}", part)
        for path in find_images(folder)
    ]


def find_leaks(items: Sequence[Item], progress: Callable[[int, int], None] | None = None) -> Leakage:
    """Compare every image of a part with those of all others.

    An image is held by its hash and outline alone, so that memory hardly grows with their number.

    Args:
        items: images of two parts at least.
        progress: called with images done and images in all.

    Raises:
        GeomoeError: fewer than two parts, or no image that can be read.
    """
    images = {part: sum(item.part == part for item in items) for part in dict.fromkeys(i.part for i in items)}
    if len(images) < 2:
        raise GeomoeError(
            "there is one part alone, of which nothing can leak; give the test images by --test"
        )
    read: list[Item] = []
    hashes: list[NDArray[np.float32]] = []
    unread: list[str] = []
    for number, item in enumerate(items, 1):
        try:
            hashes.append(_hash(_read(item.path)))
            read.append(item)
        except GeomoeError as error:
            unread.append(str(error))
        if progress:
            progress(number, len(items))
    if not read:
        raise GeomoeError(f"no image can be read: {unread[0]}")
    found = [
        leak for i, j in _candidates(np.stack(hashes)) if (leak := _compare(read[i], read[j])) is not None
    ]
    overlaps, placed = _overlaps(read)
    order = sorted(found, key=lambda leak: -leak.value) + sorted(overlaps, key=lambda leak: -leak.value)
    across = tuple(leak for leak in order if leak.parts[0] != leak.parts[1])
    within = tuple(leak for leak in found if leak.parts[0] == leak.parts[1])
    return Leakage(images, across, within, placed, tuple(unread))


@lru_cache(maxsize=16)
def _read(path: Path) -> torch.Tensor:
    """``[C, H, W]`` in about [0, 1], of three bands or one."""
    try:
        return to_unit(read_image(path, 3))
    except GeomoeError:
        return to_unit(read_image(path, 1))


def _hash(image: torch.Tensor) -> NDArray[np.float32]:
    """``[63]`` of length 1: signed roots of the coarsest cosines but the mean; 0 of a flat image."""
    grey = F.adaptive_avg_pool2d(image.mean(0)[None, None], _SIDE)[0, 0].numpy()
    if image.std() < _FLAT:
        return np.zeros(_COARSE**2 - 1, np.float32)
    cosines = dctn(grey, norm="ortho")[:_COARSE, :_COARSE].reshape(-1)[1:]
    roots = np.sign(cosines) * np.sqrt(np.abs(cosines))  # else the two or three coarsest would decide
    found: NDArray[np.float32] = (roots / max(np.linalg.norm(roots), 1e-12)).astype(np.float32)
    return found


def _turned(hashes: NDArray[np.float32], flip: bool, turns: int) -> NDArray[np.float32]:
    """Hashes ``[N, 63]`` of images mirrored left to right, if ``flip``, then turned ``turns`` times."""
    square = np.concatenate([np.zeros((len(hashes), 1), np.float32), hashes], 1).reshape(-1, _COARSE, _COARSE)
    odd = np.where(np.arange(_COARSE) % 2, -1, 1).astype(np.float32)
    if flip:
        square = square * odd
    for _ in range(turns):  # a transposition, then rows from bottom to top, as np.rot90
        square = square.transpose(0, 2, 1) * odd[:, None]
    return square.reshape(len(hashes), -1)[:, 1:]


def _candidates(hashes: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Pairs ``i < j`` whose hashes are alike as they are, or after a flip or turn."""
    for first in range(0, len(hashes), _CHUNK):
        mine = hashes[first : first + _CHUNK]
        alike: NDArray[np.bool_] = np.zeros((len(mine), len(hashes)), bool)
        for flip in (False, True):
            for turns in range(4):
                alike |= mine @ _turned(hashes, flip, turns).T >= _ALIKE
        rows, columns = np.nonzero(alike)
        for i, j in zip((rows + first).tolist(), columns.tolist(), strict=True):
            if i < j:
                yield i, j


def _compare(one: Item, other: Item) -> Leak | None:
    """The pair if it is a near duplicate at full size."""
    a, b = _read(one.path), _read(other.path)
    hashes = [_hash(x)[None] for x in (a, b)]
    best, how = 0.0, ""
    for flip in (False, True):
        for turns in range(4):
            if (hashes[0] @ _turned(hashes[1], flip, turns).T).item() < _ALIKE:
                continue
            found = _correlation(a, torch.rot90(b.flip(2) if flip else b, turns, (1, 2)))
            if found > best:
                best = found
                how = ", ".join((["flipped"] if flip else []) + ([f"turned {90 * turns}"] if turns else []))
    if best < _CORRELATION:
        return None
    return Leak("duplicate", (one.part, other.part), (one.name, other.name), round(best, 4), how)


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Pearson's, over the pixels of both in grey; 0 where their details have little in common."""
    a, b = (x.mean(0, keepdim=True) for x in (a, b))  # JPEG leaves little of fine colours
    if abs(a.shape[1] / a.shape[2] - b.shape[1] / b.shape[2]) > 0.02:
        return 0.0
    size = (min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2]))
    a, b = (x if x.shape[1:] == size else F.adaptive_avg_pool2d(x[None], size)[0] for x in (a, b))
    halves = [F.avg_pool2d(x, 2) for x in (a, b)]  # and of what is finest
    details = [_pearson(*(x.diff(dim=axis) for x in halves)) for axis in (1, 2)]
    return _pearson(a, b) if min(details) >= _DETAIL else 0.0


def _pearson(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(a.norm() * b.norm())
    return float((a * b).sum()) / scale if scale else 0.0


def _overlaps(items: Sequence[Item]) -> tuple[list[Leak], int]:
    """Images of unlike parts that show the same ground, and how many have a place at all."""
    import shapely

    places = {i: place for i, item in enumerate(items) if (place := outline(item.path)) is not None}
    numbers, outlines = list(places), [shapely.geometry.shape(place) for place in places.values()]
    if len(outlines) < 2:
        return [], len(places)
    found = []
    first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        one, other = items[numbers[i]], items[numbers[j]]
        if i >= j or one.part == other.part:
            continue
        area = min(outlines[i].area, outlines[j].area)
        share = outlines[i].intersection(outlines[j]).area / area if area else 0.0
        if share >= _SHARED:
            found.append(Leak("footprint", (one.part, other.part), (one.name, other.name), round(share, 4)))
    return found, len(places)


def outline(path: Path) -> Mapping[str, Any] | None:
    """GeoJSON of where a file lies, in longitude and latitude; None where it does not say."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    import rasterio
    import rasterio.warp

    from geomoe.raster.read.env import gdal_env, gdal_errors

    with suppress(GeomoeError), gdal_env(), gdal_errors("no outline", ""), rasterio.open(path) as file:
        if file.crs is None or file.transform.is_identity:
            return None
        corners = [(0, 0), (file.width, 0), (file.width, file.height), (0, file.height), (0, 0)]
        polygon = {"type": "Polygon", "coordinates": [[file.transform * corner for corner in corners]]}
        return rasterio.warp.transform_geom(file.crs, "EPSG:4326", polygon)  # type: ignore[no-any-return]
    return None
