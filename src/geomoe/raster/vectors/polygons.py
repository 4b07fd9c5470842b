"""Polygons of a class map, in a GeoPackage. Needs pyogrio and shapely."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from shapely import Geometry

from geomoe.errors import GeomoeError
from geomoe.files import writable_place
from geomoe.raster.vectors.pieces import Piece, Rings, Seam
from geomoe.raster.vectors.strips import ClassMap, find_pyogrio, open_map, split_kind
from geomoe.raster.write.target import work_folder

__all__ = ["polygons", "write_polygons"]

_BATCH = 2**23
"""Bytes of polygons after which they are written."""
_DATE = "1970-01-01T00:00:00.000Z"
"""Of every file, which GeoPackage wants to have one."""


def write_polygons(
    path: Path,
    target: Path,
    names: Sequence[str] = (),
    least: int = 1,
    rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    instances: Path | None = None,
) -> int:
    """Write the polygons of a class map into a GeoPackage of one layer, in the place of any older one.

    Each has the class's ``value`` and ``name``, its ``pixels``, and its ``area`` in square metres where the
    map's coordinates are lengths; where instances are known, the number of its ``instance``, 0 of none.

    Args:
        path: of the map.
        target: ends in ``.gpkg``.
        names: of the classes that are wanted; all of them if none is named.
        least: pixels that a polygon has at least, 1 for all; smaller ones are left out.
        rows: of a strip that is in memory at a time; the polygons do not depend on it.
        progress: called after each strip, with strips done and strips in all.
        instances: the map of them, which parts what touches; see
            :class:`geomoe.pipeline.layers.instances.Instances`.

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
    with open_map(path, instances) as source, _work(target) as held, _undated(pyogrio):
        wanted = _values(source, names)
        scratch = held / target.name
        called = {each.value: each.name for each in source.classes}
        batch: list[_Row] = []
        size = 0

        def write() -> None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "'crs' was not provided")  # as of the map
                pyogrio.raw.write(
                    scratch, np.array([row.wkb for row in batch], object), _columns(batch, called, source),
                    ["value", "name", "pixels", "area", *(["instance"] if source.counted else [])],
                    geometry_type="Polygon", layer=target.stem, append=scratch.exists(),
                    crs=source.crs.to_wkt() if source.crs else None, driver="GPKG",
                )  # fmt: skip
            batch.clear()

        try:
            for kind, rings in polygons(source, wanted, rows, progress):
                row = _row(kind, rings, source)
                if row.pixels < least:
                    continue
                batch.append(row)
                count += 1
                size += len(row.wkb)
                if size >= _BATCH:
                    write()
                    size = 0
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


class _Row(NamedTuple):
    value: int
    instance: int
    wkb: bytes
    pixels: int


def _row(kind: int, rings: Rings, source: ClassMap) -> _Row:
    side = 1.0 if source.transform is None else abs(source.transform.determinant)
    polygon = _placed(rings, source)
    return _Row(*split_kind(kind), shapely.to_wkb(polygon), round(polygon.area / side))


def _placed(rings: Rings, source: ClassMap) -> Geometry:
    """A polygon in the map's coordinates."""
    at = source.transform
    return (rings if at is None else Rings(np.stack(at * tuple(rings.xy.T), 1), rings.counts)).polygon()


def _columns(batch: Sequence[_Row], called: dict[int, str], source: ClassMap) -> list[NDArray[Any]]:
    values = np.array([row.value for row in batch], np.int32)
    names = np.array([called[row.value] for row in batch], object)
    pixels = np.array([row.pixels for row in batch], np.int64)
    area = np.nan if source.pixel_area is None else source.pixel_area
    instances = [np.array([row.instance for row in batch], np.int64)] if source.counted else []
    return [values, names, pixels, pixels * area, *instances]


def polygons(
    source: ClassMap,
    values: Sequence[int],
    rows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, Rings]]:
    """Kind, see `ClassMap.kinds`, and rings of the polygon of every connected piece of each, in pixels.

    Pieces meet at sides of pixels. Those that a strip cuts are held until they end, and joined. Of a map
    without instances the kind is the value of the class.
    """
    wanted = np.zeros(256, bool)
    wanted[list(values)] = True
    seam = Seam(source.width)
    for done, (top, strip) in enumerate(source.strips(rows), 1):
        below = top + len(strip)
        cut: list[Piece] = []
        at = rasterio.Affine.translation(0, top)
        numbers, stands = source.kinds(top, strip)
        for found, number in shapes(numbers, wanted[strip], connectivity=4, transform=at):
            kind = int(stands[int(number)])
            rings = Rings.of(found)
            shell = rings.xy[: rings.counts[0], 1]
            if shell.min() == top > 0 or shell.max() == below < source.height:
                cut.append(Piece.of(kind, rings))
            else:
                yield kind, rings
        for piece in seam.move(cut, top, below):
            yield piece.value, piece.rings()
        if progress is not None:
            progress(done, source.number(rows))
    for piece in seam.pieces:
        yield piece.value, piece.rings()
