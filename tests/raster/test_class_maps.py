"""Maps of classes: their colours and names, in the file and in its item."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from geomoe.errors import GeomoeError
from geomoe.raster import open_scene, select_bands
from geomoe.raster.read.classes import ClassValue
from geomoe.raster.stac.item import check_item, item_bytes, raster_item
from geomoe.raster.write.metadata import CogMetadata, same_place
from tests.raster.test_cog import _write
from tests.scenes import pixels, write_scene

CLASSES = (ClassValue(1, "corn, no till", "#ff8000"), ClassValue(2, "Wälder", "#004000"))


@pytest.fixture
def meta(tmp_path: Path) -> CogMetadata:
    with open_scene(write_scene(tmp_path / "like.tif", pixels(3, 600, 700, "uint16"))) as scene:
        return same_place(
            scene, dtype="uint8", descriptions=("class",), scales=(1.0,), nodata=0, classes=CLASSES
        )


def test_a_class_map_has_a_palette_and_overviews_that_mix_nothing(tmp_path: Path, meta: CogMetadata) -> None:
    data = np.zeros((1, 600, 700), np.uint8)
    data[:, :, 100:400], data[:, ::3, 400:] = 1, 2
    _write(tmp_path / "map.tif", meta, data)
    with rasterio.open(tmp_path / "map.tif") as cog:
        assert np.array_equal(cog.read(), data)
        assert (cog.colorinterp, cog.nodata) == ((ColorInterp.palette,), 0)
        colours = cog.colormap(1)
        assert (colours[1], colours[2], colours[0][3]) == ((255, 128, 0, 255), (0, 64, 0, 255), 0)
        assert cog.overviews(1) == [2]
        assert np.array_equal(cog.read_masks(1) > 0, data[0] > 0)
    with rasterio.open(tmp_path / "map.tif", overview_level=0) as small:
        assert small.colorinterp == (ColorInterp.palette,)
        assert {*np.unique(small.read()[:, :, 52:198])} == {1}  # where an average would be 1 and 0


def test_what_a_class_map_says_can_be_read_but_not_measured(tmp_path: Path, meta: CogMetadata) -> None:
    _write(tmp_path / "map.tif", meta, np.ones((1, 600, 700), np.uint8))
    with open_scene(tmp_path / "map.tif") as scene:
        assert scene.class_bands == (1,)
        with pytest.raises(GeomoeError, match="paletted"):
            select_bands(scene, None, 3)


def test_the_item_of_a_class_map_names_its_classes(meta: CogMetadata) -> None:
    item = raster_item(Path("map.tif"), meta, meta.nodata, None)
    [band] = json.loads(item_bytes(item, "map"))["assets"]["data"]["bands"]
    assert band["classification:classes"] == [
        {"value": 1, "name": "corn-no-till", "title": "corn, no till", "color_hint": "FF8000"},
        {"value": 2, "name": "w-lder", "title": "Wälder", "color_hint": "004000"},
        {"value": 0, "name": "no-data", "title": "no data", "nodata": True},
    ]
    item["assets"]["data"]["bands"][0]["classification:classes"][0]["name"] = "corn, no till"
    with pytest.raises(GeomoeError, match="classification"):
        check_item(item, "map")
