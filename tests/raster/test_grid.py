"""The finer grid covers the same ground, whatever its shape."""

from __future__ import annotations

import pytest
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from geomoe.raster.write.grid import upscaled, upscaled_gcps, upscaled_rpcs

GRIDS = {
    "north-up": Affine(10, 0, 4e5, 0, -10, 5e6),
    "non-square": Affine(10, 0, 4e5, 0, -20, 5e6),
    "south-up": Affine(10, 0, 4e5, 0, 10, 5e6),
    "rotated": Affine.translation(4e5, 5e6) * Affine.rotation(33) * Affine.scale(10, -10),
    "sheared": Affine(10, 3, 4e5, 1, -20, 5e6),
}


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("name", GRIDS)
def test_corners_stay_where_they_are(name: str, scale: int) -> None:
    source = GRIDS[name]
    fine = upscaled(source, scale)
    for column, row in [(0, 0), (7, 0), (0, 5), (7, 5), (3, 2)]:
        assert fine * (column * scale, row * scale) == pytest.approx(source * (column, row), rel=1e-14)
    assert fine.determinant == pytest.approx(source.determinant / scale**2)


def test_gcps_move_with_the_corner() -> None:
    (point,) = upscaled_gcps([GroundControlPoint(row=2.5, col=4, x=1, y=2, z=3, id="a", info="b")], 4)
    assert (point.row, point.col, point.x, point.y, point.z) == (10, 16, 1, 2, 3)
    assert (point.id, point.info) == ("a", "b")


def test_rpc_offsets_count_from_pixel_centres() -> None:
    rpcs = RPC(
        height_off=100, height_scale=500, lat_off=1, lat_scale=2, long_off=3, long_scale=4,
        line_den_coeff=[1.0] * 20, line_num_coeff=[2.0] * 20, samp_den_coeff=[3.0] * 20,
        samp_num_coeff=[4.0] * 20, line_off=49.5, line_scale=50, samp_off=-0.5, samp_scale=10,
    )  # fmt: skip
    fine = upscaled_rpcs(rpcs, 3)
    # A corner lies half a pixel before a centre: corner (50, 0) becomes (150, 0).
    assert (fine.line_off, fine.samp_off) == (149.5, -0.5)
    assert (fine.line_scale, fine.samp_scale) == (150, 30)
    assert fine.line_num_coeff == rpcs.line_num_coeff
