"""Bands by whatever name they have, in files, products and items alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from geomoe.data.images import read_picture
from geomoe.data.rasters import read_scaled
from geomoe.errors import GeomoeError
from geomoe.raster import band_order, learning_bands, left_out, open_scene, select_bands
from geomoe.raster.read.bands import exact_bands, exact_order
from geomoe.raster.read.names import common_name, known_as
from tests.products import write_item, write_safe
from tests.scenes import pixels, write_scene


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scene.tif"


def _colours(*names: str, product: str = "") -> list[str | None]:
    """What each band is known as, the most general name."""
    return [row[-1] if len(row) > 1 else None for row in known_as([[name] for name in names], product)]


@pytest.mark.parametrize(
    ("text", "common"),
    [
        ("Red", "red"), ("B04 - Red", "red"), ("Red (665 nm)", "red"), ("Near Infra-Red", "nir"),
        ("NIR", "nir"), ("Red Edge 1", "rededge1"), ("Vegetation red edge", "rededge"), ("SWIR 1", "swir16"),
        ("Short-wave infrared 2", "swir22"), ("Coastal aerosol", "coastal"), ("Infrared", None),
        ("blue / green", None), ("NDVI", None), ("", None), ("predicted", None),
    ],
)  # fmt: skip
def test_words_for_a_band(text: str, common: str | None) -> None:
    assert common_name(text) == common


def test_numbers_mean_what_their_sensor_counts() -> None:
    rgb = ["red", "green", "blue"]
    assert _colours("B04", "B03", "B02") == rgb
    assert _colours("B4", "B3", "B2") == rgb
    assert _colours("SR_B4", "SR_B3", "SR_B2") == rgb
    assert _colours("B4", "B3", "B2", "B5") == [*rgb, "nir"]  # of Landsat 8
    assert _colours("B04", "B03", "B02", "B08", "B8A", "B05") == [*rgb, "nir", "nir08", "rededge1"]
    # Landsat 4 to 7 count from blue: by the name of the file, or as their sixth band is of another product.
    old = ["blue", "green", "red", "nir", "swir16", "swir22"]
    assert _colours("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7") == old
    assert _colours("B1", "B2", "B3", "B4", "B5", "B7", product="LE07_L2SP_1.tif") == old
    # Blue, green, red, nir to one sensor, coastal, blue, green, red to another: not for us to say.
    assert known_as([["B1"], ["B2"], ["B3"], ["B4"]])[3] == ("B4", "B04")
    assert _colours("sur_refl_b01", "sur_refl_b04", "sur_refl_b03") == [None] * 3
    assert _colours("R", "G", "B", "N") == [*rgb, "nir"]
    assert _colours("B", "VV") == [None, None]


@pytest.mark.parametrize(
    "names",
    [
        ["blue", "green", "red"], ["B02", "B03", "B04"], ["B2", "B3", "B4"], ["SR_B2", "SR_B3", "SR_B4"],
        ["B", "G", "R"], ["Blue (490 nm)", "Green (560 nm)", "Red (665 nm)"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("spec", ["B4,B3,B2", "B04,B03,B02", "red,green,blue", "Red,B03,B2", "3,2,1"])
def test_one_way_of_naming_and_one_note(path: Path, names: list[str], spec: str) -> None:
    with open_scene(write_scene(path, pixels(3, 4, 4, "uint16"), names=names)) as scene:
        if "B" not in spec or "4" in names[2]:
            assert select_bands(scene, spec, 3) == (3, 2, 1)
        assert band_order(scene, (1, 2, 3)) == (
            "red, green and blue come in another order than models learn from; "
            f"--bands {','.join(names[::-1])} may do better"
        )
        assert band_order(scene, (3, 2, 1)) is None


def test_names_that_say_no_colour_are_told(path: Path) -> None:
    with open_scene(write_scene(path, pixels(3, 4, 4, "float32"), names=["VV", "VH", "VV/VH"])) as scene:
        assert "do not say which are red, green and blue" in str(band_order(scene, (1, 2, 3)))
        assert band_order(scene, (1, 2)) is None


def test_products_and_items_by_the_same_names(tmp_path: Path) -> None:
    safe = write_safe(tmp_path / "S2.SAFE")
    files = {key: write_scene(tmp_path / f"{key}.tif", pixels(1, 4, 4, "uint16")) for key in ("x", "y", "z")}
    item = write_item(
        tmp_path / "item.json",
        {
            key: {"href": str(file), "eo:bands": [{"name": name}]}
            for (key, file), name in zip(files.items(), ["B02", "B03", "B04"], strict=True)
        },
    )
    for spec in ("B04,B03,B02", "B4,B3,B2", "red,green,blue"):
        for product in (safe, item):
            with open_scene(product, spec) as scene:
                chosen = select_bands(scene, spec, 3)
                assert [scene.descriptions[band - 1] for band in chosen] == ["B04", "B03", "B02"]
    with open_scene(item) as scene:  # by what they are known as, they come in the order of models
        assert scene.descriptions == ("B04", "B03", "B02")


def test_what_an_item_says_of_a_band_counts_for_more_than_its_number(tmp_path: Path) -> None:
    file = write_scene(tmp_path / "a.tif", pixels(1, 4, 4, "uint16"))
    bands = {"B3": "red", "B4": "nir08"}
    assets = {
        key: {"href": str(file), "eo:bands": [{"name": key, "common_name": common}]}
        for key, common in bands.items()
    }
    with open_scene(write_item(tmp_path / "old.json", assets), "red,nir") as scene:
        assert [scene.descriptions[band - 1] for band in select_bands(scene, "red,nir", 3)] == ["B3", "B4"]


@pytest.mark.parametrize(
    ("count", "said"), [(3, "red, green, blue in this order"), (6, "in which they come")]
)
def test_bands_without_names_are_colours_only_where_there_are_few(path: Path, count: int, said: str) -> None:
    with open_scene(write_scene(path, pixels(count, 4, 4, "uint16"))) as scene:
        assert said in (band_order(scene, tuple(range(1, count + 1))) or "")


def test_learning_takes_red_green_blue_where_these_are_said(path: Path) -> None:
    data = pixels(6, 8, 8, "uint16")
    with open_scene(write_scene(path, data, names=["B02", "B03", "B04", "B05", "B8A", "B11"])) as scene:
        assert learning_bands(scene, 3) == (3, 2, 1)
        assert left_out(scene, (3, 2, 1)) == "bands left out: 4 (B05), 5 (B8A), 6 (B11)"
        assert learning_bands(scene, 2, "B8A,B11") == (5, 6)
        assert learning_bands(scene, 1) == (1,)
        with pytest.raises(GeomoeError, match=r"2 bands of .* were named, the model takes 3"):
            learning_bands(scene, 3, "B8A,B11")
    assert np.array_equal(read_scaled(path, 3)[0].argmax(1), data[[2, 1, 0]].argmax(1))
    with open_scene(write_scene(path, data[:4], names=["blue", "green", "red", "nir"])) as scene:
        assert learning_bands(scene, 4) == (3, 2, 1, 4)
        assert left_out(scene, (3, 2, 1, 4)) is None
    write_scene(path, data[:4].astype(np.uint8), photometric="RGB", alpha="YES")
    with open_scene(path) as scene:
        assert (learning_bands(scene, 3), left_out(scene, (1, 2, 3))) == ((1, 2, 3), None)
        with pytest.raises(GeomoeError, match="has 3 bands of data, 4 are wanted"):
            learning_bands(scene, 4)
    with rasterio.open(write_scene(path, data[:3]), "r+") as file:
        file.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    with open_scene(path) as scene:
        assert learning_bands(scene, 3) == (3, 2, 1)


def test_what_a_product_or_item_leaves_out_is_told(tmp_path: Path) -> None:
    safe = write_safe(tmp_path / "S2.SAFE")
    with open_scene(safe) as scene:
        assert scene.notes[1:] == (
            "left out, as they have larger pixels: B05, B8A, B11 (pixels of 20), B09 (pixels of 60); "
            "choose a grid by naming its bands",
        )
    with open_scene(safe, "B8A,B11") as scene:
        assert len(scene.notes) == 1
    file = write_scene(tmp_path / "a.tif", pixels(1, 4, 4, "uint16"))
    assets = {"red": {"href": str(file), "eo:bands": [{"name": "B04"}]}, "aot": {"href": str(file)}}
    with open_scene(write_item(tmp_path / "item.json", assets)) as scene:
        assert scene.notes == ("left out, as the item describes no bands of them: aot",)


LEARNED = ("red", "green", "nir")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("nir", "green", "red"), (3, 2, 1)),
        (("B02", "B03", "B04", "B08"), (3, 2, 4)),  # of Sentinel-2, with one band that is not wanted
        ((), (1, 2, 3)),
    ],
)
def test_a_model_that_knows_its_bands_finds_them_by_name(
    path: Path, names: tuple[str, ...], chosen: tuple[int, ...]
) -> None:
    write_scene(path, pixels(len(names) or 3, 20, 20, "uint16"), names=names)
    with open_scene(path) as scene:
        assert exact_bands(scene, 3, None, LEARNED) == chosen
        said = exact_order(scene, chosen, LEARNED)
    unnamed = "bands band 1, band 2, band 3 are taken to be red, green, nir, in this order"
    assert said == (None if names else unnamed)


def test_a_scene_that_names_other_bands_is_refused_unless_its_user_says_which_they_are(path: Path) -> None:
    write_scene(path, pixels(3, 20, 20, "uint16"), names=("red", "green", "swir22"))
    with open_scene(path) as scene:
        with pytest.raises(GeomoeError, match=r"no band.* nir; it has .*--bands which are red, green, nir"):
            exact_bands(scene, 3, None, LEARNED)
        assert exact_bands(scene, 3, "1,2,3", LEARNED) == (1, 2, 3)
        told = exact_order(scene, (1, 2, 3), LEARNED)
    assert told == "bands red, green, swir22 are taken to be red, green, nir, in this order"


def test_images_to_learn_from_say_what_their_bands_are(path: Path) -> None:
    write_scene(path, pixels(3, 20, 20, "uint16"), names=("B02", "B03", "B04"))
    assert read_picture(path, 3).names == ("red", "green", "blue")
    write_scene(path, pixels(2, 20, 20, "uint16"), names=("VV", ""))
    assert read_picture(path, 2).names == ()
    Image.new("RGB", (8, 8), (9, 50, 90)).save(path.with_suffix(".png"))
    assert read_picture(path.with_suffix(".png"), 3).names == ("red", "green", "blue")
    Image.new("L", (8, 8)).save(path.with_suffix(".png"))
    assert read_picture(path.with_suffix(".png"), 3).names == ()
