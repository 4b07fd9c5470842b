"""Polygons of a class map, in a GeoPackage. Needs pyogrio and shapely."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from shapely import Geometry
from shapely.geometry import shape

from geomoe.errors import GeomoeError
from geomoe.files import writable_place
from geomoe.raster.vectors.strips import ClassMap, find_pyogrio, open_map
from geomoe.raster.write.target import work_folder

__all__ = ["polygons", "write_polygons"]

_BATCH = 10_000
"""Polygons that are written at a time."""
_DATE = "1970-01-01T00:00:00.000Z"
"""Of every file, which GeoPackage wants to have one."""


def write_polygons(
    path: Path,
    target: Path,
    names: Sequence[str] = (),
    least: int = 1,
    rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the polygons of a class map into a GeoPackage of one layer, in the place of any older one.

    Each has the class's ``value`` and ``name``, its ``pixels``, and its ``area`` in square metres where the
    map's coordinates are lengths.

    Args:
        path: of the map.
        target: ends in ``.gpkg``.
        names: of the classes that are wanted; all of them if none is named.
        least: pixels that a polygon has at least, 1 for all; smaller ones are left out.
        rows: of a strip that is in memory at a time; the polygons do not depend on it.
        progress: called after each strip, with strips done and strips in all.

    Returns:
        How many there are.

    Raises:
        GeomoeError: no map of classes, a class that it does not know, or a file that cannot be written.
    """
    pyogrio = find_pyogrio("polygons")
    if target.suffix.lower() != ".gpkg":
        raise GeomoeError(f"{target} must end in .gpkg")
    writable_place(target)
    count = 0
    with open_map(path) as source, _work(target) as held, _undated(pyogrio):
        wanted = _values(source, names)
        scratch = held / target.name
        called = {each.value: each.name for each in source.classes}
        batch: list[tuple[int, Geometry]] = []

        def write() -> None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "'crs' was not provided")  # as of the map
                pyogrio.raw.write(
                    scratch, shapely.to_wkb(np.array([one for _, one in batch], object)),
                    _columns(batch, called, source), ["value", "name", "pixels", "area"],
                    geometry_type="Polygon", layer=target.stem, append=scratch.exists(),
                    crs=source.crs.to_wkt() if source.crs else None, driver="GPKG",
                )  # fmt: skip
            batch.clear()

        try:
            for value, polygon in polygons(source, wanted, rows, progress):
                if polygon.area < least:
                    continue
                batch.append((value, _placed(polygon, source)))
                count += 1
                if len(batch) == _BATCH:
                    write()
            if batch or not count:
                write()
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError) as error:
            raise GeomoeError(f"{target} cannot be written: {error}") from error
        os.replace(scratch, target)
    return count


@contextmanager
def _work(target: Path) -> Iterator[Path]:
    """A new folder beside a file to be; what a process that was killed left of it is removed."""
    folder = work_folder(target)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise GeomoeError(f"{target} cannot be written: {folder.name} is in the way") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _undated(pyogrio: Any) -> Iterator[None]:
    """Without the time of writing, by which files of the same polygons would differ."""
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _DATE})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _values(source: ClassMap, names: Sequence[str]) -> list[int]:
    known = {each.name: each.value for each in source.classes}
    for name in names:
        if name not in known:
            raise GeomoeError(f"{source.path.name} has no class {name!r}; it has: {', '.join(known)}")
    return [known[name] for name in names] or list(known.values())


def _placed(polygon: Geometry, source: ClassMap) -> Geometry:
    """Pixels as the map's coordinates."""
    at = source.transform
    return polygon if at is None else shapely.transform(polygon, lambda xy: np.stack(at * tuple(xy.T), 1))


def _columns(
    batch: Sequence[tuple[int, Geometry]], called: dict[int, str], source: ClassMap
) -> list[NDArray[Any]]:
    side = 1.0 if source.transform is None else abs(source.transform.determinant)
    pixels = np.array([one.area / side for _, one in batch]).round().astype(np.int64)
    values = np.array([value for value, _ in batch], np.int32)
    names = np.array([called[int(value)] for value in values], object)
    area = np.nan if source.pixel_area is None else source.pixel_area
    return [values, names, pixels, pixels * area]


def polygons(
    source: ClassMap,
    values: Sequence[int],
    rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, Geometry]]:
    """Value and polygon of every connected piece of each class, in pixels; pieces meet at sides of pixels.

    Pieces that a strip cuts are held until they end, and joined.
    """
    wanted = np.zeros(256, bool)
    wanted[list(values)] = True
    held: dict[int, list[Geometry]] = {}
    for number, (top, strip) in enumerate(source.strips(rows), 1):
        below = top + len(strip)
        cut: dict[int, list[Geometry]] = {}
        at = rasterio.Affine.translation(0, top)
        for found, value in shapes(strip, wanted[strip], connectivity=4, transform=at):
            polygon = shape(found)
            _, first, _, last = polygon.bounds
            open_above, open_below = top > 0 and first == top, below < source.height and last == below
            if open_above or open_below:
                cut.setdefault(int(value), []).append(polygon)
            else:
                yield int(value), polygon
        for value in sorted({*held, *cut}):
            for piece in _joined([*held.pop(value, ()), *cut.get(value, ())]):
                if below < source.height and piece.bounds[3] == below:
                    held.setdefault(value, []).append(piece)
                else:
                    yield value, piece
        if progress is not None:
            progress(number, source.number(rows))


def _joined(pieces: Sequence[Geometry]) -> list[Geometry]:
    """Those that share a side as one; without the points that strips left on their sides."""
    whole = shapely.simplify(shapely.union_all(pieces), 0)
    return [piece for piece in shapely.get_parts(whole) if piece.area > 0]
