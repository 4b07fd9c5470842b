"""Where on Earth the pixels of a file lie, in longitude and latitude."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.warp
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import GCPTransformer, RPCTransformer

from geomoe.errors import GeomoeError
from geomoe.raster.read.env import gdal_env, gdal_errors
from geomoe.raster.write.metadata import CogMetadata

__all__ = ["Footprint", "footprint"]

_WGS84 = CRS.from_epsg(4326)
_PARTS = 20
"""Of each side, as a straight line on the ground is none in longitude and latitude."""
_TOLERANCE = 1e-4
"""Of the outline's extent: points that stray less from a straight line are left out."""
_DIGITS = 9
"""Of a degree: a tenth of a millimetre."""

_Points = NDArray[np.float64]
"""``[N, 2]``: longitude and latitude in degrees."""


@dataclass(frozen=True)
class Footprint:
    """An outline and its bounds, as GeoJSON (RFC 7946) has them.

    Attributes:
        geometry: a ``Polygon``, or a ``MultiPolygon`` where the antimeridian cuts it.
        bbox: west, south, east, north in degrees; west is larger than east across the antimeridian.
    """

    geometry: dict[str, Any]
    bbox: list[float]


def footprint(meta: CogMetadata) -> Footprint | None:
    """The outline of a file on WGS 84, ``None`` where it has no place on Earth that can be told.

    It is placed by its ground control points, else by transform and CRS, else by its RPCs (at their mean
    height). An outline that leaves the Earth, as that of a geostationary full disc does, is none.
    """
    try:
        with gdal_env(), gdal_errors("no outline", ""):
            sides = _on_earth(meta)
    except GeomoeError:
        return None
    if sides is None or not np.isfinite(sides).all():
        return None
    ring = sides.reshape(-1, 2)
    ring[:, 1] = ring[:, 1].clip(-90, 90)
    turn = _unwrap(ring)
    if abs(turn) > 180:
        return _around_a_pole(ring, turn)
    extent = float(np.ptp(ring, axis=0).max())
    corners = [_thin(side, _TOLERANCE * extent)[:-1] for side in ring.reshape(sides.shape)]
    return _cut(np.concatenate(corners))


def _on_earth(meta: CogMetadata) -> _Points | None:
    """The four sides, ``[4, _PARTS + 1, 2]``, clockwise on the image."""
    steps = np.linspace(0, 1, _PARTS + 1)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], dtype=np.float64)
    unit = corners[:4, None] + (corners[1:] - corners[:-1])[:, None] * steps[:, None]  # [4, parts + 1, 2]
    columns, rows = (unit * (meta.width, meta.height)).reshape(-1, 2).T
    if meta.gcps and meta.gcps_crs:
        crs = meta.gcps_crs
        with GCPTransformer(list(meta.gcps)) as by_points:
            x, y = by_points.xy(rows, columns, offset="ul")
    elif meta.transform is not None and meta.crs is not None:
        crs = meta.crs
        t = meta.transform
        x, y = t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f
    elif meta.rpcs is not None:
        crs = _WGS84
        with RPCTransformer(meta.rpcs) as by_rpcs:
            # RPCs count from the centre of the first pixel, as this transformer knows.
            x, y = by_rpcs.xy(rows, columns, zs=np.full(len(rows), meta.rpcs.height_off), offset="ul")
    else:
        return None
    if crs != _WGS84:
        x, y = rasterio.warp.transform(crs, _WGS84, list(x), list(y))
    return np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], axis=1).reshape(unit.shape)


def _unwrap(ring: _Points) -> float:
    """Take out the jumps of longitudes, in place; gives how far they turn, 360 or -360 around a pole."""
    steps = np.diff(ring[:, 0])
    ring[1:, 0] -= 360 * np.cumsum(np.rint(steps / 360))
    return float(ring[-1, 0] - ring[0, 0])


def _thin(line: _Points, tolerance: float) -> _Points:
    """Points that a line needs (Douglas and Peucker 1973), the ends among them."""
    start, end = line[0], line[-1]
    along = end - start
    length = float(np.hypot(*along))
    away = line - start
    off = np.abs(along[0] * away[:, 1] - along[1] * away[:, 0]) / length if length else np.hypot(*away.T)
    far = int(off.argmax())
    if off[far] <= tolerance:
        return line[[0, -1]]
    return np.concatenate([_thin(line[: far + 1], tolerance)[:-1], _thin(line[far:], tolerance)])


def _around_a_pole(ring: _Points, turn: float) -> Footprint:
    """An outline that goes round the Earth: what lies between it and the pole on its side."""
    pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
    line = ring[:-1] if turn > 0 else ring[:0:-1]
    shift = 360 * np.rint(line[0, 0] / 360)
    # Three turns, of which the middle one is kept.
    turns = np.concatenate([line + np.array([360 * k - shift, 0]) for k in (-1, 0, 1)])
    ends = np.array([(turns[-1, 0], pole), (turns[0, 0], pole)])
    whole = _clip(np.concatenate([turns, ends]))
    south, north = sorted((pole, float(ring[:, 1].min() if pole > 0 else ring[:, 1].max())))
    return Footprint(_geometry([whole]), _rounded([-180.0, south, 180.0, north]))


def _cut(ring: _Points) -> Footprint | None:
    """A closed outline whose longitudes go on over 180 degrees, cut where they do."""
    if np.ptp(ring[:, 0]) >= 360:
        west, east = -180.0, 180.0
        parts = [np.array([(-180, ring[:, 1].min()), (180, ring[:, 1].min()),
                           (180, ring[:, 1].max()), (-180, ring[:, 1].max())])]  # fmt: skip
    else:
        first = 360 * np.floor((ring[:, 0].min() + 180) / 360)
        # From west to east: the part before the antimeridian, and the part after it.
        shifted = [_clip(ring - (first + 360 * k, 0)) for k in (0, 1)]
        parts = [part for part in shifted if _has_area(part)]
        if not parts:
            return None
        west, east = float(parts[0][:, 0].min()), float(parts[-1][:, 0].max())
    bounds = [west, float(ring[:, 1].min()), east, float(ring[:, 1].max())]
    return Footprint(_geometry(parts), _rounded(bounds))


def _has_area(ring: _Points) -> bool:
    """Whether something is left of it in the digits that are written."""
    points = np.unique(ring.round(_DIGITS), axis=0)
    return len(points) > 2 and bool(np.ptp(points, axis=0).min() > 0)


def _clip(ring: _Points) -> _Points:
    """What lies within 180 degrees of longitude on both sides (Sutherland and Hodgman 1974)."""
    return _below(_below(ring, 180.0, 1), 180.0, -1)


def _below(ring: _Points, limit: float, sign: int) -> _Points:
    kept: list[tuple[float, float]] = []
    edge = sign * limit
    for (x0, y0), (x1, y1) in zip(np.roll(ring, 1, axis=0).tolist(), ring.tolist(), strict=True):
        inside = sign * x1 <= limit
        if inside != (sign * x0 <= limit):
            kept.append((edge, y0 + (y1 - y0) * (edge - x0) / (x1 - x0)))
        if inside:
            kept.append((x1, y1))
    return np.array(kept, dtype=np.float64).reshape(-1, 2)


def _geometry(parts: list[_Points]) -> dict[str, Any]:
    rings = [[_closed(part)] for part in parts]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}


def _closed(ring: _Points) -> list[list[float]]:
    """Anticlockwise, as RFC 7946 asks, and with its first point at the end again."""
    x, y = (ring - ring[0]).T
    area = float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    points = [_rounded(point) for point in (ring if area >= 0 else ring[::-1]).tolist()]
    kept = [point for i, point in enumerate(points) if point != points[i - 1]]
    return [*kept, kept[0]]


def _rounded(values: list[float]) -> list[float]:
    return [round(float(value), _DIGITS) + 0.0 for value in values]  # no -0.0
