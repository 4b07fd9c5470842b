"""Two folders of GeoTIFFs, of low and of high resolution, matched by name, place and date.

The folders are called ``LR`` and ``HR``, or ``low`` and ``high``, in any case. Which scenes belong together
:mod:`geomoe.data.super_resolution.matching` says; both are cut to the area that they share on the ground, in
whole low-resolution pixels. Nothing is resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomoe.data.images import sift
from geomoe.data.super_resolution.matching import match
from geomoe.errors import GeomoeError

if TYPE_CHECKING:
    from geomoe.data.super_resolution.raster_pairs import PairOfScenes

__all__ = ["match_scenes", "paired_folders", "read_paired", "valid_tiles"]

_NAMES = (("lr", "hr"), ("low", "high"))
_SUFFIXES = (".tif", ".tiff", ".jp2")


def paired_folders(root: Path) -> tuple[Path, Path] | None:
    """The folders of the low- and of the high-resolution scenes in ``root``."""
    folders = {path.name.lower(): path for path in root.iterdir() if path.is_dir()} if root.is_dir() else {}
    for low, high in _NAMES:
        if low in folders and high in folders:
            return folders[low], folders[high]
    return None


def match_scenes(
    root: Path, scale: int, tolerance: float, say: Callable[[str], None] = lambda line: None
) -> list[list[PairOfScenes]]:
    """All pairs in ``root``: a list for each low-resolution scene that has a counterpart, in order of names.

    Args:
        root: of the two folders.
        scale: that the pairs must have.
        tolerance: by how much grids may be off, in high-resolution pixels.
        say: called with a line that says how scenes were matched, and which were not.

    Raises:
        GeomoeError: no such folders, no match or several, scenes without a grid, another ratio of pixel
            sizes, or grids that are off.
    """
    from geomoe.data.super_resolution.raster_pairs import (  # rasterio is wanted for these files alone
        common_area,
        footprint,
    )

    folders = paired_folders(root)
    if folders is None:
        raise GeomoeError(f"{root} holds no folders LR and HR (or low and high) of GeoTIFFs")
    low, high = ([footprint(path) for path in _scenes(folder)] for folder in folders)
    matches = match(low, high, folders, lambda one, other: common_area(one, other, tolerance))
    if not matches.pairs:
        raise GeomoeError(f"no scene of {folders[0]} overlaps one of {folders[1]} by a whole pixel")
    for pair in (pair for pairs in matches.pairs for pair in pairs):
        if pair.scale != scale:
            raise GeomoeError(
                f"the pixel sizes of {pair.low.name} and {pair.high.name} have a ratio of {pair.scale}, "
                f"not {scale}"
            )
    say(str(matches))
    return matches.pairs


def _scenes(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    if not found:
        raise GeomoeError(f"{folder} holds no scene ({', '.join(_SUFFIXES)})")
    return found


def read_paired(
    pairs: Sequence[PairOfScenes],
    bands: int,
    tile: int,
    least: int = 1,
    *,
    names: str | None = None,
    skip: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[tuple[Tensor, Tensor]]:
    """Pairs as float32 in the range of models at inference, ``[bands, h, w]`` and ``[bands, s h, s w]``.

    A pair that has pixels without a measurement is cut into tiles, of which those without any are kept: what
    would be filled in is no truth to learn from.

    Args:
        pairs: from :func:`match_scenes`.
        bands: how many are wanted, of both, in the same order.
        tile: side of a tile, low-resolution pixels.
        least: a pair that shares less along a side, such as neighbours whose edges overlap, is left out.
        names: of the bands, if not the usual ones.
        skip: whether pairs that cannot be read are left out.
        say: called with a line that says what is left out.

    Raises:
        GeomoeError: nothing left, too few bands, or types that differ within a pair.
    """
    from geomoe.data.super_resolution.raster_pairs import read_pair

    wide = [pair for pair in pairs if min(pair.low_window.width, pair.low_window.height) >= least]
    read = []
    empty = 0
    for pair, (low, high, valid) in sift(wide, lambda pair: read_pair(pair, bands, names), skip, say):
        s = pair.scale
        tiles = valid_tiles(valid, tile)
        empty += not tiles
        for y, x, height, width in tiles:
            cut = high[:, y * s : (y + height) * s, x * s : (x + width) * s]
            read.append((low[:, y : y + height, x : x + width], cut))
    if not read:
        raise GeomoeError(
            f"no pair shares {least} x {least} low-resolution pixels, or {tile} x {tile} that are valid in "
            "both scenes where some are not; try a smaller patch_size"
        )
    if short := len(pairs) - len(wide) + empty:
        say(f"left out, {short} of {len(pairs)} pairs share less than a patch of valid pixels")
    return [(torch.from_numpy(a.copy()), torch.from_numpy(b.copy())) for a, b in read]


def valid_tiles(valid: NDArray[np.bool_], tile: int) -> list[tuple[int, int, int, int]]:
    """Row, column, height and width of what can be used: everything, or tiles without an invalid pixel."""
    height, width = valid.shape
    if valid.all():
        return [(0, 0, height, width)]
    corners = ((y, x) for y in range(0, height - tile + 1, tile) for x in range(0, width - tile + 1, tile))
    return [(y, x, tile, tile) for y, x in corners if valid[y : y + tile, x : x + tile].all()]
