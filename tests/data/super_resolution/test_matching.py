"""Which scenes of two folders belong together."""

import numpy as np
import pytest
from affine import Affine

from geomoe import GeomoeError
from geomoe.data.super_resolution.paired import match_scenes
from tests.scenes import UTM, write_scene

DAYS = ("2020-01-10", "2020-02-14", "2020-03-01", "2020-04-21", "2020-05-05")


def scene(path, column=0, side=8, scale=1):
    """Of the place that begins at a column of the coarse grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = UTM * Affine.translation(column, 0) * Affine.scale(1 / scale)
    write_scene(path, np.full((1, side * scale, side * scale), 7, np.uint8), transform=grid)


def matched(root, scale=2):
    said = []
    pairs = match_scenes(root, scale, 0.1, said.append)
    return [(p.low.name, p.high.name) for some in pairs for p in some], said[0]


def test_dates_of_one_site_are_not_mixed(tmp_path):
    for site in range(4):
        for day in DAYS:
            for kind, scale in (("LR", 1), ("HR", 2)):
                scene(tmp_path / kind / f"site{site}_{day}.tif", site * 100, scale=scale)
    pairs, said = matched(tmp_path)
    assert len(pairs) == 20
    assert all(low == high for low, high in pairs)
    assert said == "pairs of scenes that were matched: 20 by name"


def test_crops_that_share_a_made_up_place_are_matched_by_name_or_refused(tmp_path):
    for i in range(20):
        scene(tmp_path / "a" / "LR" / f"crop_{i}_LR.tif")
        scene(tmp_path / "a" / "HR" / f"{i}.tif", scale=2)
        scene(tmp_path / "b" / "low" / f"crop{i}_low.tif")
        scene(tmp_path / "b" / "high" / f"HIGH-crop{i}.tif", scale=2)
    pairs, said = matched(tmp_path / "b")
    assert sorted(pairs) == sorted((f"crop{i}_low.tif", f"HIGH-crop{i}.tif") for i in range(20))
    assert said.endswith("20 by name")
    with pytest.raises(GeomoeError, match=r"show one place, and neither names nor days tell which belong"):
        matched(tmp_path / "a")


def test_days_decide_where_names_do_not(tmp_path):
    for i, day in enumerate(DAYS):
        scene(tmp_path / "LR" / f"S2_{day.replace('-', '')}T103021.tif")
        if i != 2:
            scene(tmp_path / "HR" / f"venus_{day}_0{i}.tif", scale=2)
    pairs, said = matched(tmp_path)
    assert len(pairs) == 4
    assert all(low[3:11] == high[6:16].replace("-", "") for low, high in pairs)
    assert said.endswith("matched: 4 by date; 1 scene without a counterpart: LR/S2_20200301T103021.tif")


def test_the_day_that_a_scene_says_is_believed_before_its_name(tmp_path):
    import rasterio

    for name, day in (("one", "2021-07-01"), ("two", "2021-07-09")):
        for kind, scale in (("LR", 1), ("HR", 2)):
            path = tmp_path / kind / f"{name if scale == 1 else name[::-1]}.tif"
            scene(path, scale=scale)
            with rasterio.open(path, "r+") as file:
                file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=f"{day}T10:00:00Z")
    assert matched(tmp_path)[0] == [("one.tif", "eno.tif"), ("two.tif", "owt.tif")]


def test_places_decide_where_names_say_nothing(tmp_path):
    """A large scene and tiles of it, each with a margin that its neighbour has too."""
    scene(tmp_path / "LR" / "whole.tif", side=24)
    for i in range(3):
        scene(tmp_path / "HR" / f"tile{i}.tif", 8 * i - 1 if i else 0, scale=2)
    scene(tmp_path / "HR" / "elsewhere.tif", 500, scale=2)
    pairs, said = matched(tmp_path)
    assert pairs == [("whole.tif", f"tile{i}.tif") for i in range(3)]
    assert said.endswith("3 by place; 1 scene without a counterpart: HR/elsewhere.tif")


def test_equal_names_of_other_places_are_no_pair(tmp_path):
    for i in range(3):
        scene(tmp_path / "LR" / f"{i}.tif", 100 * i)
        scene(tmp_path / "HR" / f"{i}.tif", 100 * (2 - i), scale=2)
    pairs, said = matched(tmp_path)
    assert pairs == [("0.tif", "2.tif"), ("1.tif", "1.tif"), ("2.tif", "0.tif")]
    assert said.endswith("1 by name, 2 by place")


def test_one_scene_for_several_days_is_refused(tmp_path):
    for day in DAYS:
        scene(tmp_path / "LR" / f"{day}.tif")
    scene(tmp_path / "HR" / "aerial.tif", scale=2)
    with pytest.raises(
        GeomoeError, match=r"HR/aerial.tif, LR/2020-01-10.tif, LR/2020-02-14.tif show one place"
    ):
        matched(tmp_path)


def test_names_alone_do_where_folders_differ(tmp_path):
    for i in range(2):
        scene(tmp_path / "LR" / "sentinel" / f"{i}.tif")
        scene(tmp_path / "HR" / f"{i}.TIF", scale=2)
    assert matched(tmp_path)[0] == [("0.tif", "0.TIF"), ("1.tif", "1.TIF")]
