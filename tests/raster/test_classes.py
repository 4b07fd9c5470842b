"""Bands of classes, flags and masks are not super-resolved into classes that nobody saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geomoe.errors import GeomoeError
from geomoe.pipeline import describe_scene, upscale
from geomoe.raster import learning_bands, left_out, look, open_scene, select_bands
from geomoe.raster.read.classes import names_classes
from tests.pipeline.fakes import nearest
from tests.products import write_item
from tests.scenes import left_over, pixels, write_scene


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("SCL", True), ("BQA", True), ("QA_PIXEL", True), ("pixel_qa", True), ("QA60", True), ("Fmask", True),
        ("CLASSIFICATION", True), ("land cover", True), ("SR_QA_AEROSOL", True), ("cloud mask", True),
        ("B04", False), ("red", False), ("sclera", False), ("aqua", False), ("glass", False),
        ("unmasked", False),
    ],
)  # fmt: skip
def test_names_of_classes(name: str, classes: bool) -> None:
    assert names_classes(name) == classes


def test_a_band_of_classes_is_left_out_and_told_or_refused_by_name(tmp_path: Path) -> None:
    src = write_scene(tmp_path / "s.tif", pixels(4, 20, 24, "uint16"), names=["B04", "B03", "SCL", "B02"])
    report = upscale(src, tmp_path / "out.tif", model=nearest(2), scale=2)
    assert report.plan.names == ("B04", "B03", "B02")
    assert "bands left out: 3 (SCL), which hold classes" in report.plan.notes
    assert describe_scene(src)["left out"] == "3 (SCL), which hold classes"
    with open_scene(src) as scene:
        assert learning_bands(scene, 3) == (1, 2, 4)
        assert left_out(scene, (1, 2)) == "bands left out: 4 (B02); 3 (SCL), which hold classes"
        for spec in ("scl", "1,3", [3]):
            with pytest.raises(GeomoeError, match=r"band 3 \(SCL\) of s.tif holds classes.*-r nearest"):
                select_bands(scene, spec, 3)


@pytest.mark.parametrize("by", ["name", "file", "tags", "layer", "aux"])
def test_a_scene_of_classes_alone_is_refused(tmp_path: Path, by: str) -> None:
    src = tmp_path / ("LC08_046027_BQA.tif" if by == "file" else "s.tif")
    write_scene(src, pixels(1, 20, 24, "uint16"), names=["BQA"] if by == "name" else ())
    if by == "aux":
        src.with_name("s.tif.aux.xml").write_text(
            '<PAMDataset><PAMRasterBand band="1"><CategoryNames><Category>water</Category></CategoryNames>'
        )
    elif by in ("tags", "layer"):
        with rasterio.open(src, "r+") as file:
            file.update_tags(
                1, **({"CLASSIFICATION": "1=water"} if by == "tags" else {"LAYER_TYPE": "thematic"})
            )
    before = left_over(tmp_path)
    with pytest.raises(GeomoeError, match=r"only classes, .*gdal_translate -r nearest") as refused:
        upscale(src, tmp_path / "out.tif", model=nearest(2), scale=2)
    assert "\n" not in str(refused.value)
    assert left_over(tmp_path) == before
    # The same numbers as measurements, or as real numbers (a probability of a class), are none.
    float_src = write_scene(tmp_path / "p.tif", pixels(1, 20, 24, "float32"), names=["cloud mask"])
    with open_scene(float_src) as scene:
        assert select_bands(scene, None, 3) == (1,)


def test_secrecy_is_no_class(tmp_path: Path) -> None:
    src = write_scene(tmp_path / "s.tif", pixels(1, 20, 24, "uint16"))
    with rasterio.open(src, "r+") as file:
        file.update_tags(CLASSIFICATION="UNCLASSIFIED")
    with open_scene(src) as scene:
        assert scene.class_bands == ()
    with rasterio.open(src, "r+") as file:
        file.update_tags(CLASSIFICATION="0: water, 1: land")
    with open_scene(src) as scene:
        assert scene.class_bands == (1,)


def test_an_item_says_that_an_asset_holds_classes(tmp_path: Path) -> None:
    files = {key: write_scene(tmp_path / f"{key}.tif", pixels(1, 8, 8, "uint8")) for key in ("red", "cover")}
    assets = {
        "red": {"href": str(files["red"]), "eo:bands": [{"name": "B04"}]},
        "cover": {
            "href": str(files["cover"]), "eo:bands": [{"name": "cover"}],
            "classification:classes": [{"value": 1, "name": "water"}],
        },
    }  # fmt: skip
    item = write_item(tmp_path / "item.json", assets)
    with open_scene(item) as scene:
        assert [scene.descriptions[band - 1] for band in scene.data_bands] == ["B04"]
        assert left_out(scene, scene.data_bands) == "bands left out: 2 (cover), which hold classes"
    with open_scene(item, "cover") as scene, pytest.raises(GeomoeError, match="holds classes"):
        select_bands(scene, "cover", 3)
    assert json.loads(item.read_text())["assets"]["cover"]["href"] == str(files["cover"])


def test_few_different_values_are_told(tmp_path: Path) -> None:
    data = pixels(2, 80, 90, "uint8")
    data[1] = data[1] // 32
    with open_scene(write_scene(tmp_path / "s.tif", data)) as opened:
        scene, _ = look(opened, (1, 2))
    count = len(np.unique(data[1]))
    assert scene.notes == (
        f"band 2 has {count} different values alone: if these are classes, leave it out, as new ones "
        "come about between them",
    )
