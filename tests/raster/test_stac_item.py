"""STAC items of local files: which assets are bands, what is said of them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.pipeline import upscale
from geomoe.raster import open_scene, select_bands
from geomoe.raster.formats.stac_item import read_item
from geomoe.raster.stac.collection import read_collection
from geomoe.raster.stac.links import href as reference
from geomoe.raster.stac.links import local_href
from geomoe.raster.write.target import item_path
from tests.pipeline.fakes import nearest
from tests.products import write_item, write_jp2
from tests.scenes import UTM, pixels, write_scene

COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def _asset(
    folder: Path, key: str, name: str = "", common: str = "", side: int = 24, **said: Any
) -> dict[str, Any]:
    """An asset with a file of its own; a band of it is described if it has a name."""
    if not (folder / f"{key}.tif").exists():
        write_scene(
            folder / f"{key}.tif", pixels(1, side, side, "uint16", seed=sum(key.encode())),
            transform=UTM * UTM.scale(24 / side),
        )  # fmt: skip
    described = {"eo:bands": [{"name": name, "common_name": common}]} if name else {}
    return {"href": f"./{key}.tif", "type": COG, "roles": ["data"], **described, **said}


def _earth_search(folder: Path, **properties: Any) -> Path:
    """As Earth Search has them: by alphabet, with twins, classes without a described band and pictures."""
    raster = {
        "raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}],
        "roles": ["data", "reflectance"],
    }
    assets = {
        "aot": _asset(folder, "aot", **raster),
        "blue": _asset(folder, "blue", "blue", "blue", **raster),
        "green": _asset(folder, "green", "green", "green", **raster),
        "nir": _asset(folder, "nir", "nir", "nir", **raster),
        "red": _asset(folder, "red", "red", "red", **raster),
        "swir16": _asset(folder, "swir16", "swir16", "swir16", 12, **raster),
        "scl": _asset(folder, "scl", side=12, roles=["data", "reflectance"]),
        "visual": {"href": "TCI.tif", "type": COG, "roles": ["visual"], "eo:bands": [{"name": "red"}]},
        "thumbnail": {"href": "https://example.com/a.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "metadata": {"href": "metadata.xml", "type": "application/xml", "roles": ["metadata"]},
    }
    data = pixels(1, 24, 24, "uint16", seed=sum(b"red"))[0]
    write_jp2(folder / "B04.jp2", data, 10)
    assets["red-jp2"] = {**assets["red"], "href": "B04.jp2", "type": "image/jp2"}
    return write_item(folder / "item.json", assets, **properties)


def _refusal(path: Path, bands: str | None = None) -> str:
    with pytest.raises(GeomoeError) as caught, open_scene(path, bands):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_described_bands_of_the_finest_grid_once_each(tmp_path: Path) -> None:
    with open_scene(_earth_search(tmp_path)) as scene:
        assert scene.descriptions == ("red", "green", "blue", "nir")
        assert scene.files[1:] == tuple(tmp_path / f"{n}.tif" for n in scene.descriptions)  # no JPEG 2000
        assert (scene.scales, scene.offsets, scene.nodata) == ((1e-4,) * 4, (-0.1,) * 4, 0)
        assert scene.acquired == "2024-05-01T10:06:01Z"
        offset, *left = scene.notes
        assert offset == "offset -0.1 is declared, as the item lists it"
        assert [note.partition(",")[0] for note in left] == ["left out"] * 2  # coarser bands; aot, scl


def test_offsets_that_were_applied_are_not_declared_again(tmp_path: Path) -> None:
    path = _earth_search(tmp_path, **{"earthsearch:boa_offset_applied": True})
    upscale(path, tmp_path / "out.tif", model=nearest(), scale=2, bands="nir,RED")
    with rasterio.open(tmp_path / "out.tif") as out:
        assert (out.descriptions, out.scales, out.offsets) == (("nir", "red"), (1e-4,) * 2, (0,) * 2)
        assert out.nodata == 0
        red = pixels(1, 24, 24, "uint16", seed=sum(b"red"))[0]
        assert np.array_equal(out.read(2)[::2, ::2], red)
    with open_scene(path) as scene:
        assert "applied before" in scene.notes[0]


@pytest.mark.parametrize(
    ("bands", "names"),
    [("swir16", ["swir16"]), ("blue,aot", ["blue", "aot"]), ("2", ["green"])],
)
def test_bands_by_name_also_those_that_are_not_described(
    tmp_path: Path, bands: str, names: list[str]
) -> None:
    with open_scene(_earth_search(tmp_path), bands) as scene:
        assert [scene.descriptions[b - 1] for b in select_bands(scene, bands, 3)] == names


def test_a_band_answers_to_asset_key_name_and_common_name(tmp_path: Path) -> None:
    assets = {
        f"B0{i}_{size}m": _asset(tmp_path, f"B0{i}_{size}m", f"B0{i}", common, 24 * 10 // size)
        for size in (20, 10) for i, common in ((2, "blue"), (4, "red"))
    }  # fmt: skip
    path = write_item(tmp_path / "item.json", assets)
    for bands, expected in (("B04", 24), ("red", 24), ("B04_20m", 12), ("b02_20M,red", 12)):
        with open_scene(path, bands) as scene:
            assert scene.width == expected
    assert "of 10: B02; of 20: B04" in _refusal(path, "B02_10m,B04_20m")


def test_bands_of_stac_1_1_and_one_asset_of_many(tmp_path: Path) -> None:
    write_scene(tmp_path / "all.tif", pixels(4, 16, 20, "uint16"))
    rows: list[dict[str, Any]] = [
        {"name": f"b{i}", "eo:common_name": name, "eo:center_wavelength": wave, "raster:offset": i}
        for i, (name, wave) in enumerate([("blue", 0.49), ("green", 0.56), ("red", 0.66), ("nir", 0.8)])
    ]
    asset = {"href": "all.tif", "bands": rows, "raster:scale": 0.01, "nodata": "nan"}
    with open_scene(write_item(tmp_path / "item.json", {"data": asset})) as scene:
        assert scene.descriptions == ("b2", "b1", "b0", "b3")
        assert (scene.scales, scene.offsets) == ((0.01,) * 4, (2, 1, 0, 3))
        assert scene.nodata is None  # an integer is never NaN
        data, _ = scene.read(Window(0, 0, 20, 16), (1, 4))
    assert np.array_equal(data, pixels(4, 16, 20, "uint16")[[2, 3]])
    asset["bands"] = rows[:3]
    assert "describes 3" in _refusal(write_item(tmp_path / "item.json", {"data": asset}))
    with open_scene(write_item(tmp_path / "item.json", {"data": {"href": "all.tif"}}), "data 3") as scene:
        assert scene.descriptions == ("data 3",)


def test_what_is_elsewhere_is_left_out_or_asked_for(tmp_path: Path) -> None:
    assets = {"red": _asset(tmp_path, "red", "B04"), "nir": _asset(tmp_path, "nir", "B08")}
    assets["nir"]["href"] = "https://example.com/nir.tif"
    path = write_item(tmp_path / "item.json", assets)
    with open_scene(path) as scene:
        assert scene.descriptions == ("B04",)
        assert scene.notes == ("not on this machine, and left out: nir",)
    with open_scene(path, "B04") as scene:
        assert scene.notes == ()
    assert "download it" in _refusal(path, "B04,b08")
    assert "has no band B05; choose bands of one pixel size: of 10: B04" in _refusal(path, "B05")
    for href in (
        "s3://bucket/a.tif",
        "/vsicurl/http://example.com/a.tif",
        "file:///etc/hostname",
        "none.tif",
    ):
        assets = {"red": {"href": href, "type": COG}}
        assert "download it" in _refusal(write_item(path, assets))


def test_links_may_go_through_other_folders(tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    asset = {**_asset(tmp_path, "red"), "href": "../red.tif"}
    with open_scene(write_item(tmp_path / "items" / "item.json", {"a": asset})) as scene:
        assert scene.files[1] == tmp_path / "red.tif"
    asset["href"] = str(tmp_path / "red.tif")
    with open_scene(write_item(tmp_path / "items" / "item.json", {"a": asset})) as scene:
        assert scene.descriptions == ("a",)


@pytest.mark.parametrize("name", ["a b.tif", "50%.tif", "a#b?.tif", "é.tif", "a%20b.tif"])
def test_our_own_item_opens_the_file_beside_it(tmp_path: Path, name: str) -> None:
    write_scene(tmp_path / "src.tif", pixels(3, 12, 12, "uint16"))
    upscale(tmp_path / "src.tif", tmp_path / name, model=nearest(), scale=2)
    item = item_path(tmp_path / name)
    with open_scene(item) as scene:
        assert scene.files == (item, tmp_path / name)
    (tmp_path / "all.json").write_text(
        json.dumps({"type": "Catalog", "links": [{"rel": "item", "href": reference(item.name)}]})
    )
    item.write_text(item.read_text().replace('"id": ', '"id": "a", "was": '))
    assert read_collection(tmp_path / "all.json") == [("a", item)]


def test_a_name_that_stands_there_as_it_is_comes_first(tmp_path: Path) -> None:
    for name in ("a%20b.tif", "a b.tif"):
        assert local_href(tmp_path / "item.json", "a%20b.tif") == tmp_path / "a%20b.tif"
        (tmp_path / name).touch()
    (tmp_path / "a%20b.tif").unlink()
    assert local_href(tmp_path / "item.json", "a%20b.tif") == tmp_path / "a b.tif"
    for href in ("%2Fvsimem/a.tif", "https%3A//a/b.tif", "%00.tif", "file%3a%2f%2f/etc/passwd"):
        assert local_href(tmp_path / "item.json", href) is None


@pytest.mark.parametrize("href", ["/dev/zero", "/etc/hostname", "text.tif", "item.json", ".", "\0.tif"])
def test_links_to_what_is_no_raster(tmp_path: Path, href: str) -> None:
    (tmp_path / "text.tif").write_text("hello")
    message = _refusal(write_item(tmp_path / "item.json", {"a": {"href": href, "type": "image/tiff"}}))
    assert "hello" not in message


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "{}", "[" * 100_000, '{"type": "Feature"}', '{"type": "Feature", "assets": []}',
     '{"type": "Feature", "assets": {"a": 1}}', '{"type": "Feature", "assets": {"a": {"href": 1}}}',
     '{"type": "Feature", "assets": {"a": {"href": "a.tif", "roles": 1}}}',
     '{"type": "Feature", "assets": {"a": {"href": "a.tif", "bands": [1]}}}',
     '{"type": "Feature", "assets": {}, "properties": []}', '{"type": "Collection", "assets": {}}',
     '{"type": "Feature", "assets": {"a": {"href": "a.txt"}}}', "9" * 5000, "\ud800"],
)  # fmt: skip
def test_what_is_no_item_is_our_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "item.json").write_bytes(text.encode(errors="surrogatepass"))
    _refusal(tmp_path / "item.json")


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_BAND = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("name", "common_name", "scale", "offset", "nodata"), _ANY)
)
_ASSET = st.fixed_dictionaries(
    {"href": st.sampled_from(["a.tif", "b.jp2"]) | _ANY},
    optional={"type": _ANY, "roles": _ANY, "bands": st.lists(_BAND, max_size=3) | _ANY,
              "raster:bands": st.lists(_BAND, max_size=3) | _ANY, "raster:scale": _ANY},
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), _ASSET | _ANY, max_size=3), st.dictionaries(st.text(), _ANY) | _ANY
)
def test_any_structure_is_an_item_or_our_error(assets: object, properties: object) -> None:
    content = json.dumps({"type": "Feature", "assets": assets, "properties": properties}).encode()
    try:
        found = read_item("item.json", content)
    except GeomoeError:
        return
    bands = [band for asset in found.assets for band in asset.bands]
    assert all(np.isfinite([b.scale, b.offset]).all() and b.scale != 0 for b in bands)
    assert all(name.isprintable() for b in bands for name in b.names)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_our_error(content: bytes) -> None:
    with pytest.raises(GeomoeError):
        read_item("item.json", content)


LISTED = "offset -0.1 is declared, as the item lists it and "


@pytest.mark.parametrize(
    ("properties", "offset", "note"),
    [
        ({"platform": "sentinel-2b"}, -0.1,
         f"{LISTED}does not say whether it was applied before (earthsearch:boa_offset_applied)"),
        ({"earthsearch:boa_offset_applied": False}, -0.1, f"{LISTED}says that it was not applied before"),
        ({"sentinel:boa_offset_applied": False}, -0.1, f"{LISTED}says that it was not applied before"),
        ({"earthsearch:boa_offset_applied": True}, 0,
         "the offsets that the item lists are not used, as it says that they were applied before"),
        ({"sentinel:boa_offset_applied": True}, 0,
         "the offsets that the item lists are not used, as it says that they were applied before"),
        ({"s2:processing_baseline": "02.14", "earthsearch:boa_offset_applied": False}, 0,
         "the offsets that the item lists are not used, as processing baseline 02.14 has none"),
        ({"s2:processing_baseline": "05.10"}, -0.1,
         f"{LISTED}does not say whether it was applied before (earthsearch:boa_offset_applied)"),
        ({"platform": "landsat-8"}, -0.1, "offset -0.1 is declared, as the item lists it"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_listed_offset_is_said(
    tmp_path: Path, properties: dict[str, Any], offset: float, note: str
) -> None:
    with open_scene(_earth_search(tmp_path, **properties)) as scene:
        assert scene.offsets == (offset,) * 4
        assert scene.notes[0] == note
        assert scene.scaled_by == ("the item",) * 4


def test_a_file_that_contradicts_its_item_is_said(tmp_path: Path) -> None:
    path = _earth_search(tmp_path)
    with rasterio.open(tmp_path / "red.tif", "r+") as file:
        file.scales, file.offsets = (1e-4,), (0.05,)
    with open_scene(path) as scene:
        assert scene.offsets == (0.05, -0.1, -0.1, -0.1)
        assert scene.scaled_by == ("the file", *("the item",) * 3)
        assert scene.notes[-1] == (
            "scale and offset are those of the files, though something else is listed: "
            "red * 0.0001 +0.05 (not * 0.0001 -0.1)"
        )
