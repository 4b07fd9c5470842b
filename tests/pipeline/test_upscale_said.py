"""What is said of a scene before it is upscaled, and kept of it afterwards."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import rasterio
from rasterio.windows import Window

from geomoe import pipeline
from geomoe.errors import GeomoeError
from geomoe.models.weights import Card, LoadedModel
from geomoe.pipeline import describe_scene, plan_scene, upscale
from tests.models.sizes import tiny
from tests.pipeline.fakes import nearest
from tests.products import write_safe
from tests.scenes import left_over, pixels, write_scene


def test_dry_run_tells_the_job_and_writes_nothing(src: Path, tmp_path: Path) -> None:
    write_scene(src, pixels(5, 50, 70, "uint16"))
    plan = plan_scene(src, tmp_path / "o.tif", model=nearest(4), tile=30, experts=tmp_path / "e.tif")
    assert (plan.size, plan.output_size, plan.tile) == ((70, 50), (280, 200), 32)
    assert (plan.tiles, plan.passes) == (6, 12)
    assert plan.groups == ((1, 2, 3), (4, 5, 5))
    assert plan.scratch_bytes > 280 * 200 * 5 * 2
    assert left_over(tmp_path) == ["src.tif"]
    write_scene(src, pixels(5, 500, 700, "uint16"))
    big = plan_scene(src, tmp_path / "o.tif", model=nearest(4), tile=30)
    assert big.memory_bytes == pytest.approx(plan.memory_bytes, rel=1e-3)  # but for the size of strips
    with pytest.raises(GeomoeError, match="does not exist"):
        plan_scene(src, tmp_path / "none" / "o.tif", model=nearest(4))


def test_description_says_what_was_understood(src: Path) -> None:
    data = pixels(4, 40, 50, "uint16")
    data[:, :10] = 0
    write_scene(src, data, nodata=0)
    facts = describe_scene(src, model=nearest())
    assert list(facts) == [
        "scene", "size", "crs", "pixel", "bands", "order", "validity", "values", "radiometry", "known",
        "upscale",
    ]  # fmt: skip
    assert facts["known"] == "10 m a pixel", "no block without an invalid pixel tells the noise"
    assert "nodata 0" in facts["validity"]
    assert "75.0%" in facts["validity"]
    assert facts["pixel"].startswith("10 x 10 metre")
    assert "100 x 80 pixels" in facts["upscale"]
    assert all("\n" not in fact for fact in facts.values())


def test_output_is_read_like_any_cog(src: Path, dst: Path) -> None:
    write_scene(src, pixels(3, 300, 300, "uint8"), photometric="RGB")
    upscale(src, dst, model=nearest(tile=128), scale=2)
    with rasterio.open(dst) as out:
        assert out.overviews(1) == [2]
        assert out.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert [c.name for c in out.colorinterp] == ["red", "green", "blue"]
        assert out.read(1, window=Window(590, 590, 10, 10)).shape == (10, 10)


def test_scale_and_offset_are_shown_with_who_says_them(src: Path, tmp_path: Path) -> None:
    data = pixels(2, 40, 50, "uint16") // 40  # up to some 1600
    write_scene(src, data)
    assert describe_scene(src)["values"] == "as stored; no scale or offset is declared"
    with rasterio.open(src, "r+") as file:
        file.scales, file.offsets = (1e-4, 1e-4), (0, 0)
    assert describe_scene(src)["values"] == "stored * 0.0001, by the file"
    with rasterio.open(src, "r+") as file:
        file.scales, file.offsets = (1e-4, 2e-4), (-0.1, -0.1)
    below = max((data[0] * 1e-4 < 0.1).mean(), (data[1] * 2e-4 < 0.1).mean())
    assert describe_scene(src)["values"] == (
        "band 1: stored * 0.0001 -0.1, by the file; band 2: stored * 0.0002 -0.1, by the file; "
        f"by which up to {below:.0%} of a band are negative: the offset may be in the values already"
    )
    safe = write_safe(tmp_path / "S2.SAFE")
    facts = describe_scene(safe)
    assert facts["values"].startswith("stored * 0.0001 -0.1, by the product")
    assert "(DN - 1000) / 10000, by processing baseline 05.10" in facts["decided"]


def test_points_of_an_unknown_crs_are_carried_over(tmp_path: Path) -> None:
    points = [
        rasterio.control.GroundControlPoint(row, col, 30 + col, 40 - row) for row in (0, 9) for col in (0, 9)
    ]
    write_scene(tmp_path / "s.tif", pixels(3, 10, 10, "uint8"), transform=None, crs=None)
    with rasterio.open(tmp_path / "s.tif", "r+") as file:
        file.gcps = (points, rasterio.CRS())
    upscale(tmp_path / "s.tif", tmp_path / "o.tif", model=nearest(), scale=2)
    with rasterio.open(tmp_path / "o.tif") as file:
        got, crs = file.gcps
    assert not crs
    assert [(p.x, p.y, p.row, p.col) for p in got] == [(p.x, p.y, 2 * p.row, 2 * p.col) for p in points]


def test_another_option_that_no_tensor_tells_is_another_job(tmp_path: Path) -> None:
    """Weights of one hash may cut a border in two ways: one must not be taken for the other."""
    write_scene(tmp_path / "s.tif", pixels(3, 20, 20, "uint8"))
    for border in ("features", "published"):
        model = tiny("swinir", border=border)
        card = Card("swinir", asdict(model.config), "unit", {}, "", {}, "", {}, "", "", "", "same")
        one = LoadedModel("one", model.eval(), card)
        upscale(tmp_path / "s.tif", tmp_path / "o.tif", model=one, scale=2, overwrite=True)
        item = json.loads((tmp_path / "o.stac.json").read_text())
        assert item["properties"]["geomoe:configuration"]["options"]["border"] == border


@pytest.mark.parametrize(("earlier", "now"), pipeline._EARLIER.items())
def test_names_of_0_1_are_still_there(earlier: str, now: str) -> None:
    assert getattr(pipeline, earlier) is getattr(pipeline, now)
