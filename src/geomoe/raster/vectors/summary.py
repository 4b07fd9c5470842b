"""How much of each class there is on a map, or in each zone of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from geomoe.errors import GeomoeError
from geomoe.files import write_csv
from geomoe.raster.read.env import gdal_errors
from geomoe.raster.vectors.strips import ClassMap, find_pyogrio, open_map

__all__ = ["write_summary", "zones_on"]

_COLUMNS = ("zone", "value", "class", "pixels", "share", "area")


def write_summary(path: Path, target: Path, zones: Path | None = None) -> int:
    """Write a table of the classes of a map into a CSV: a line for each class that there is, by zone.

    ``pixels`` are those whose middle lies in the zone, ``share`` is of the zone's pixels with data, ``area``
    in square metres, empty where the map's coordinates are no lengths.

    Args:
        path: of the map.
        target: the table.
        zones: polygons, in any format and coordinates that GDAL knows, called by their column ``name`` or
            ``id``, or else by their number from 1; they may overlap. The whole map if not given.

    Returns:
        Number of lines.

    Raises:
        GeomoeError: no map of classes, zones that cannot be used, or a file that cannot be written.
    """
    with open_map(path) as source:
        counted = [("", _counts(source))] if zones is None else _by_zone(source, zones)
        area = source.pixel_area
        lines: list[tuple[object, ...]] = []
        for zone, counts in counted:
            known = int(counts[1:].sum())
            for each in source.classes:
                if pixels := int(counts[each.value]):
                    size = "" if area is None else f"{pixels * area:.10g}"
                    share = f"{pixels / known:.6f}"
                    lines.append((zone, each.value, each.name, pixels, share, size))
    write_csv(target, [_COLUMNS, *lines])
    return len(lines)


def _counts(source: ClassMap) -> NDArray[np.int64]:
    counts = np.zeros(256, np.int64)
    for _, strip in source.strips():
        counts += np.bincount(strip.ravel(), minlength=256)
    return counts


@dataclass
class _Zone:
    name: str
    geometry: dict[str, Any]
    rows: tuple[float, float]
    counts: NDArray[np.int64]


def _by_zone(source: ClassMap, path: Path) -> list[tuple[str, NDArray[np.int64]]]:
    zones = zones_on(source, path)
    for top, strip in source.strips():
        below = top + len(strip)
        for zone in zones:
            if zone.rows[0] < below and zone.rows[1] > top:
                at = rasterio.Affine.translation(0, top)
                inside = rasterize([zone.geometry], strip.shape, transform=at, dtype=np.uint8)
                zone.counts += np.bincount(strip[inside > 0], minlength=256)
    return [(zone.name, zone.counts) for zone in zones]


class _Grid(Protocol):
    @property
    def path(self) -> Path: ...

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def transform(self) -> rasterio.Affine | None: ...

    @property
    def crs(self) -> CRS | None: ...


def zones_on(source: _Grid, path: Path) -> list[_Zone]:
    """Zones of a file, in pixels of a map or of the scene that it is made of.

    Raises:
        GeomoeError: zones that cannot be used, or none that lies there.
    """
    pyogrio = find_pyogrio("zones")
    if source.transform is None or source.crs is None:
        raise GeomoeError(f"{source.path.name} does not say where it lies, so zones cannot be found on it")
    try:
        meta, _, shapes, columns = pyogrio.raw.read(path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise GeomoeError(f"{path} cannot be read: {error}") from error
    if not meta["crs"]:
        raise GeomoeError(f"{path} does not say in which coordinates its zones are")
    fields = [str(name) for name in meta["fields"]]
    names = next((columns[fields.index(name)] for name in ("name", "id") if name in fields), None)
    backwards = ~source.transform
    zones: list[_Zone] = []
    there = False
    for number, found in enumerate(shapely.from_wkb(shapes)):
        if found is None or found.is_empty or found.geom_type not in ("Polygon", "MultiPolygon"):
            raise GeomoeError(f"{path}: zone {number + 1} is no polygon")
        outline = shapely.geometry.mapping(found)
        with gdal_errors(f"{path}: zone {number + 1} is not where {source.path.name} lies", "leave it out"):
            moved = shapely.geometry.shape(transform_geom(meta["crs"], source.crs, outline))
        pixels = shapely.transform(moved, lambda xy: np.stack(backwards * tuple(xy.T), 1))
        left, first, right, last = pixels.bounds
        there = there or (left < source.width and right > 0 and first < source.height and last > 0)
        name = str(number + 1 if names is None else names[number])
        zero = np.zeros(256, np.int64)
        zones.append(_Zone(name, shapely.geometry.mapping(pixels), (first, last), zero))
    if not there:
        raise GeomoeError(f"{path}: no zone lies on {source.path.name}")
    return zones
