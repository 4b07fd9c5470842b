"""Outlines whose longitudes and latitudes are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC

from geomoe.raster.stac.footprint import Footprint, footprint
from geomoe.raster.write.metadata import CogMetadata


def meta_of(
    width: int, height: int, transform: Affine | None, crs: str | None, **changes: Any
) -> CogMetadata:
    fields: dict[str, Any] = {
        "width": width, "height": height, "count": 1, "dtype": "uint8", "nodata": None, "mask": False,
        "nan_nodata": False, "transform": transform, "crs": None if crs is None else CRS.from_string(crs),
        "gcps": (), "gcps_crs": None, "rpcs": None, "descriptions": (None,), "units": (None,),
        "scales": (1.0,), "offsets": (0.0,), "colorinterp": (ColorInterp.gray,), "tags": {},
        "band_tags": ({},), "namespaces": {},
    }  # fmt: skip
    return CogMetadata(**{**fields, **changes})


def _place(*args: Any, **changes: Any) -> Footprint:
    found = footprint(meta_of(*args, **changes))
    assert found is not None
    return found


def _rings(place: Footprint) -> list[list[list[float]]]:
    coordinates = place.geometry["coordinates"]
    return [coordinates[0]] if place.geometry["type"] == "Polygon" else [part[0] for part in coordinates]


def _area(ring: list[list[float]]) -> float:
    """Of the shoelace, positive if anticlockwise."""
    x, y = np.array(ring[:-1]).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def test_a_rectangle_of_degrees_has_four_corners() -> None:
    place = _place(100, 50, Affine(0.1, 0, 10, 0, -0.1, 50), "EPSG:4326")
    assert place.bbox == [10, 45, 20, 50]
    assert _rings(place) == [[[10, 45], [20, 45], [20, 50], [10, 50], [10, 45]]]


def test_a_tile_of_utm_lies_where_it_does_and_its_sides_are_curves() -> None:
    """33TWN of Sentinel-2 begins on the central meridian of its zone, 15 degrees east."""
    place = _place(1098, 1098, Affine(100, 0, 500000, 0, -100, 5200020), "EPSG:32633")
    west, south, east, north = place.bbox
    assert (west, north) == pytest.approx((15, 46.9537), abs=1e-3)
    assert (east, south) == pytest.approx((16.4418, 45.9508), abs=3e-2)
    (ring,) = _rings(place)
    assert 5 < len(ring) < 25
    # Its northern side sags: the middle lies above the line between the corners.
    top = [y for x, y in ring if 15.4 < x < 16.0 and y > 46.5]
    ends = [max(y for x, y in ring if x < 15.01), max(y for x, y in ring if x > 16.3)]
    assert all(y > np.mean(ends) for y in top)


def test_across_the_antimeridian() -> None:
    place = _place(100, 50, Affine(0.1, 0, 175, 0, -0.1, 50), "EPSG:4326")
    assert place.geometry["type"] == "MultiPolygon"
    assert place.bbox == [175, 45, -175, 50]
    east, west = _rings(place)
    assert {x for x, _ in east} == {175, 180}
    assert {x for x, _ in west} == {-180, -175}


def test_an_end_at_the_antimeridian_is_no_crossing() -> None:
    for start, box in ((170, [170, 45, 180, 50]), (-180, [-180, 45, -170, 50]), (180, [-180, 45, -170, 50])):
        place = _place(100, 50, Affine(0.1, 0, start, 0, -0.1, 50), "EPSG:4326")
        assert (place.geometry["type"], place.bbox) == ("Polygon", box)


@pytest.mark.parametrize("start", [-180, 0, 20])
def test_the_whole_globe(start: int) -> None:
    place = _place(360, 180, Affine(1, 0, start, 0, -1, 90), "EPSG:4326")
    assert place.bbox == [-180, -90, 180, 90]
    assert _area(_rings(place)[0]) == 360 * 180


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
@pytest.mark.parametrize("east", [-5e5, -3e5])
def test_around_a_pole(crs: str, pole: int, east: float) -> None:
    place = _place(1000, 1000, Affine(1000, 0, east, 0, -1000, 5e5), crs)
    west, south, right, north = place.bbox
    assert (west, right) == (-180, 180)
    assert pole in (south, north)
    assert 80 < abs(south + north - pole) < 84
    (ring,) = _rings(place)
    assert _area(ring) > 0
    assert np.diff(sorted(x for x, _ in ring)).max() < 30


def test_near_a_pole_but_not_around_it() -> None:
    place = _place(100, 100, Affine(1000, 0, 2e5, 0, -1000, 5e5), "EPSG:3413")
    assert place.bbox[3] < 90
    assert place.bbox[0] != -180


def test_points_and_polynomials_place_a_raster_too() -> None:
    corners = [(0, 0, 10, 50), (0, 100, 20, 50), (50, 0, 10, 45), (50, 100, 20, 45)]
    gcps = tuple(GroundControlPoint(row=r, col=c, x=x, y=y) for r, c, x, y in corners)
    place = _place(100, 50, None, None, gcps=gcps, gcps_crs=CRS.from_epsg(4326))
    assert place.bbox == pytest.approx([10, 45, 20, 50], abs=1e-6)
    one = [1.0] + [0.0] * 19
    # Columns from 0 to 100 are 10 to 20 degrees east, lines from 0 to 50 are 50 to 45 degrees north.
    rpcs = RPC(
        height_off=0, height_scale=1, lat_off=47.5, lat_scale=2.5, long_off=15, long_scale=5, line_off=24.5,
        line_scale=25, samp_off=49.5, samp_scale=50, line_num_coeff=[0, 0, -1.0] + [0.0] * 17,
        samp_num_coeff=[0, 1.0] + [0.0] * 18, line_den_coeff=one, samp_den_coeff=one,
    )  # fmt: skip
    place = _place(100, 50, None, None, rpcs=rpcs)
    assert place.bbox == pytest.approx([10, 45, 20, 50], abs=1e-3)


def test_no_place_on_earth() -> None:
    grid = Affine(1, 0, 0, 0, -1, 0)
    assert footprint(meta_of(9, 9, None, None)) is None
    assert footprint(meta_of(9, 9, grid, None)) is None
    engineering = 'LOCAL_CS["here",UNIT["metre",1]]'
    assert footprint(meta_of(9, 9, grid, engineering)) is None
    full_disc = "+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84"
    assert footprint(meta_of(9, 9, Affine(12e5, 0, -54e5, 0, -12e5, 54e5), full_disc)) is None
    assert footprint(meta_of(9, 9, Affine(1, 0, np.nan, 0, -1, 0), "EPSG:4326")) is None


@settings(max_examples=150, deadline=None)
@example(zone="EPSG:3995", east=-(2.0**-52), north=0.5, turn=1.0, side=0.03125)  # a sliver beyond 180 degrees
@given(
    zone=st.sampled_from(["EPSG:32601", "EPSG:32660", "EPSG:32733", "EPSG:3857", "EPSG:4326", "EPSG:3995"]),
    east=st.floats(-0.9, 0.9), north=st.floats(-0.9, 0.9), turn=st.floats(0, 360), side=st.floats(1e-4, 0.05),
)  # fmt: skip
def test_every_outline_is_as_rfc_7946_has_it(
    zone: str, east: float, north: float, turn: float, side: float
) -> None:
    spans = {"EPSG:4326": (180, 85), "EPSG:3857": (2e7, 1.5e7), "EPSG:3995": (3e6, 3e6)}
    width, height = spans.get(zone, (8e5, 9e6))
    centre = (east * width, north * height) if zone in spans else (5e5 + east * 3e5, abs(north) * height)
    grid = (
        Affine.translation(*centre)
        * Affine.rotation(turn)
        * Affine.scale(side * width / 50, -side * height / 50)
    )
    place = footprint(meta_of(50, 50, grid, zone))
    if place is None:
        return
    west, south, right, north_ = place.bbox
    points = np.concatenate([np.array(ring) for ring in _rings(place)])
    assert np.abs(points[:, 0]).max() <= 180
    assert np.abs(points[:, 1]).max() <= 90
    for ring in _rings(place):
        assert ring[0] == ring[-1]
        assert len(ring) >= 4
        assert _area(ring) >= 0
    assert (points[:, 1].min(), points[:, 1].max()) == pytest.approx((south, north_), abs=1e-8)
    crosses = len(_rings(place)) == 2
    assert crosses == (west > right)
    if not crosses:
        assert (points[:, 0].min(), points[:, 0].max()) == pytest.approx((west, right), abs=1e-8)
