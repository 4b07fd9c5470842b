import numpy as np
import pytest
from affine import Affine

from geomoe import GeomoeError
from geomoe.data.super_resolution.layouts import find_layout, real_pairs
from geomoe.data.super_resolution.paired import match_scenes
from geomoe.data.super_resolution.raster_pairs import common_area, footprint
from tests.scenes import UTM, pixels, write_scene


def fine(scale, columns=0.0, rows=0.0):
    """The grid of ``UTM`` made finer, its corner moved by so many fine pixels."""
    return UTM * Affine.scale(1 / scale) * Affine.translation(columns, rows)


def scenes(root, low, high, transform, **options):
    for kind, data, grid in (("LR", low, UTM), ("HR", high, transform)):
        (root / kind).mkdir(exist_ok=True, parents=True)
        write_scene(root / kind / f"{kind}_a.tif", data, transform=grid, **options)
    return tuple(footprint(root / kind / f"{kind}_a.tif") for kind in ("LR", "HR"))


def grown(low, scale):
    return low.repeat(scale, 1).repeat(scale, 2)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_same_ground_is_cut_from_both(tmp_path, scale):
    """The fine scene begins inside the third coarse column and ends before the last row does."""
    low = pixels(4, 12, 14, "uint16")
    whole = grown(low, scale)
    begin, end = 2 * scale + 1, 11 * scale + 1
    scenes(tmp_path, low, whole[:, :end, begin:], fine(scale, begin, 0))
    (pair,) = real_pairs("paired", tmp_path, "test", scale=scale, bands=4)
    assert (pair[0].shape, pair[1].shape) == ((4, 11, 11), (4, 11 * scale, 11 * scale))
    np.testing.assert_array_equal(pair[1].numpy(), grown(pair[0].numpy(), scale))
    (again,) = match_scenes(tmp_path, scale, 0.1)[0]
    assert (again.low_window.col_off, again.low_window.row_off) == (3, 0)
    assert again.high_window.col_off == scale - 1


def test_a_scene_that_sticks_out_on_all_sides_is_cut_to_the_other(tmp_path):
    low, high = scenes(tmp_path, pixels(1, 5, 6, "uint8"), pixels(1, 40, 40, "uint8"), fine(4, -7, -9))
    pair = common_area(low, high, 0.1)
    assert (pair.low_window.width, pair.low_window.height) == (6, 5)
    assert (pair.high_window.col_off, pair.high_window.row_off) == (7, 9)


def test_the_range_is_that_of_the_low_scene(tmp_path):
    low = pixels(1, 40, 40, "uint16")
    high = grown(low, 2).copy()
    high[0, 2:4, 2:70] = 65535
    scenes(tmp_path, low, high, fine(2))
    ((a, b),) = real_pairs("paired", tmp_path, "test", scale=2, bands=1)
    np.testing.assert_array_equal(b[:, 4:, :].numpy(), grown(a.numpy(), 2)[:, 4:])
    assert b[:, 2:4, 2:70].min() > 1.05


@pytest.mark.parametrize(("ratio", "found"), [(2.5, "2.5"), (5, "5"), (1, "1")])
def test_a_ratio_that_is_no_scale_is_refused(tmp_path, ratio, found):
    low, high = scenes(tmp_path, pixels(1, 9, 9, "uint8"), pixels(1, 20, 20, "uint8"), fine(ratio))
    with pytest.raises(GeomoeError, match=f"LR_a.tif and HR_a.tif have a ratio of {found} along rows"):
        common_area(low, high, 0.1)


def test_grids_that_are_off_are_refused_beyond_the_tolerance(tmp_path):
    low, high = scenes(tmp_path, pixels(1, 9, 9, "uint8"), pixels(1, 30, 30, "uint8"), fine(4, 0.3, 0.4))
    with pytest.raises(
        GeomoeError, match=r"off by 0.5 high-resolution pixels, more than the tolerance of 0.1"
    ):
        common_area(low, high, 0.1)
    assert common_area(low, high, 0.51).scale == 4


def test_a_turned_grid_is_off(tmp_path):
    turned = fine(4) * Affine.rotation(1)
    low, high = scenes(tmp_path, pixels(1, 30, 30, "uint8"), pixels(1, 100, 100, "uint8"), turned)
    with pytest.raises(GeomoeError, match="off by"):
        common_area(low, high, 0.1)


def test_scenes_far_apart_or_by_less_than_a_pixel_do_not_match(tmp_path):
    low, high = scenes(tmp_path, pixels(1, 9, 9, "uint8"), pixels(1, 20, 20, "uint8"), fine(4, 400, 0))
    assert common_area(low, high, 0.1) is None
    with pytest.raises(GeomoeError, match="overlaps one of"):
        match_scenes(tmp_path, 4, 0.1)
    low, high = scenes(tmp_path / "b", pixels(1, 9, 9, "uint8"), pixels(1, 20, 20, "uint8"), fine(4, 33, 0))
    assert common_area(low, high, 0.1) is None


def test_another_crs_is_followed(tmp_path):
    """The same metres, once more with a false easting 1 km further east."""
    shifted = "+proj=utm +zone=18 +datum=WGS84 +units=m"
    custom = "+proj=tmerc +lat_0=0 +lon_0=-75 +k=0.9996 +x_0=501000 +y_0=0 +datum=WGS84 +units=m"
    low = pixels(2, 10, 10, "uint8")
    (tmp_path / "low").mkdir(), (tmp_path / "high").mkdir()
    write_scene(tmp_path / "low" / "x.tif", low, crs=shifted)
    moved = Affine.translation(1000, 0) * fine(2)
    write_scene(tmp_path / "high" / "y.tif", grown(low, 2), transform=moved, crs=custom)
    ((a, b),) = real_pairs("paired", tmp_path, "test", scale=2, bands=2)
    assert a.shape == (2, 10, 10)
    np.testing.assert_array_equal(b.numpy(), grown(a.numpy(), 2))


def test_each_low_scene_meets_all_that_overlap_it_and_is_held_out_whole(tmp_path):
    low = pixels(1, 16, 16, "uint8")
    (tmp_path / "lr").mkdir(), (tmp_path / "hr").mkdir()
    for i in range(3):
        east = UTM * Affine.translation(12 * i, 0)  # the last quarter of one is the first of the next
        write_scene(tmp_path / "lr" / f"{i}.tif", low, transform=east)
        for half in range(2):
            data = grown(low, 2)[:, :, 16 * half : 16 * half + 16]
            at = east * Affine.translation(8 * half, 0) * Affine.scale(0.5)
            write_scene(tmp_path / "hr" / f"{half}{i}.tif", data, transform=at)
    assert find_layout(tmp_path) == "paired"
    assert [len(pairs) for pairs in match_scenes(tmp_path, 2, 0.1)] == [3, 4, 3]
    fit, kept = (
        real_pairs("paired", tmp_path, part, scale=2, bands=1, tile=8) for part in ("fit", "validation")
    )
    assert (len(fit), len(kept)) == (4, 2)  # without what neighbours share, 4 pixels wide
    assert {tuple(a.shape) for a, _ in fit.pairs} == {(1, 16, 8)}
    with pytest.raises(GeomoeError, match="no pair shares 9 x 9"):
        real_pairs("paired", tmp_path, "fit", scale=2, bands=1, tile=9)


def test_pixels_without_a_measurement_are_left_out_by_tiles(tmp_path):
    low = pixels(1, 16, 16, "uint16")
    high = grown(low, 2).copy()
    low[0, 0, 0], high[0, 31, 31] = 0, 0  # of two opposite quarters
    scenes(tmp_path, low, high, fine(2), nodata=0)
    pairs = real_pairs("paired", tmp_path, "test", scale=2, bands=1, tile=8)
    assert [tuple(a.shape) for a, _ in pairs.pairs] == [(1, 8, 8)] * 2
    for a, b in pairs.pairs:
        np.testing.assert_array_equal(b.numpy(), grown(a.numpy(), 2))
    with pytest.raises(GeomoeError, match="or 12 x 12 that are valid"):
        real_pairs("paired", tmp_path, "test", scale=2, bands=1, tile=12)


def test_pairs_that_cannot_be_compared_are_refused(tmp_path):
    scenes(tmp_path, pixels(1, 8, 8, "uint8"), pixels(1, 16, 16, "uint16"), fine(2))
    with pytest.raises(GeomoeError, match=r"LR_a.tif is uint8 and HR_a.tif is uint16"):
        real_pairs("paired", tmp_path, "test", scale=2, bands=1)
    with pytest.raises(GeomoeError, match="have a ratio of 2, not 4"):
        real_pairs("paired", tmp_path, "test", scale=4, bands=1)
    scenes(tmp_path, pixels(1, 8, 8, "uint8"), pixels(2, 16, 16, "uint8"), fine(2))
    with pytest.raises(GeomoeError, match="2 are wanted"):
        real_pairs("paired", tmp_path, "test", scale=2, bands=2)
    write_scene(tmp_path / "LR" / "b.tif", pixels(1, 8, 8, "uint8"), transform=None, crs=None)
    with pytest.raises(GeomoeError, match="has no grid"):
        match_scenes(tmp_path, 2, 0.1)
    with pytest.raises(GeomoeError, match="no folders LR and HR"):
        match_scenes(tmp_path / "LR", 2, 0.1)
