"""Items of rasters, and the schemas that they are checked against."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from geomoe.errors import GeomoeError
from geomoe.raster.formats.stac_item import read_item as read_scene_item
from geomoe.raster.read.dates import in_utc
from geomoe.raster.read.known import pixel_metres
from geomoe.raster.stac.item import (
    EXTENSIONS,
    check_item,
    file_fields,
    item_bytes,
    raster_item,
    read_item,
    when,
)
from geomoe.raster.stac.links import file_name, href
from tests.products import write_item
from tests.raster.test_footprint import meta_of

Change = Callable[[dict[str, Any]], object]
UTM = Affine(10, 0, 5e5, 0, -10, 5e6)


def an_item(**changes: Any) -> dict[str, Any]:
    meta = meta_of(*changes.pop("grid", (20, 10, UTM, "EPSG:32633")), **changes)
    return raster_item(Path("out.tif"), meta, meta.nodata, None)


def a_model() -> dict[str, Any]:
    array = {
        "shape": [-1, 3, -1, -1],
        "dim_order": ["batch", "channel", "height", "width"],
        "data_type": "float32",
    }
    return {
        **an_item(grid=(2, 2, None, None)),
        "stac_extensions": [EXTENSIONS["mlm"]],
        "properties": {
            "datetime": "2026-01-01T00:00:00Z",
            "mlm:name": "a name",
            "mlm:architecture": "x",
            "mlm:tasks": ["super-resolution"],
            "mlm:input": [{"name": "image", "bands": [], "input": array}],
            "mlm:output": [{"name": "image", "tasks": ["super-resolution"], "result": array}],
        },
        "assets": {"weights": {"href": "./w", "roles": ["mlm:model"], "mlm:artifact_type": "safetensors"}},
    }  # fmt: skip


def test_the_grid_of_a_file() -> None:
    properties = an_item()["properties"]
    assert properties["proj:code"] == "EPSG:32633"
    assert properties["proj:shape"] == [10, 20]
    assert properties["proj:transform"] == [10, 0, 5e5, 0, -10, 5e6]
    assert properties["proj:bbox"] == [5e5, 5e6 - 100, 5e5 + 200, 5e6]
    turned = an_item(grid=(20, 10, UTM * Affine.rotation(90), "EPSG:32633"))["properties"]
    assert turned["proj:bbox"] == pytest.approx([5e5 - 100, 5e6 - 200, 5e5, 5e6])


def test_a_crs_without_a_code_is_written_out() -> None:
    own = "+proj=laea +lat_0=51.3 +lon_0=9.7 +ellps=WGS84 +units=m"
    properties = an_item(grid=(20, 10, UTM, own))["properties"]
    assert properties["proj:code"] is None
    assert properties["proj:wkt2"].startswith("PROJCRS[")


def test_without_a_grid_there_is_a_shape_and_no_place() -> None:
    item = an_item(grid=(20, 10, None, None))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert {k: v for k, v in item["properties"].items() if k.startswith("proj")} == {
        "proj:code": None, "proj:shape": [10, 20],
    }  # fmt: skip
    check_item(item, "x")


def test_a_time_that_is_not_known_is_any_time() -> None:
    assert an_item()["properties"]["datetime"] is None
    assert an_item()["properties"]["start_datetime"] == "1858-01-01T00:00:00Z"
    meta = meta_of(2, 2, UTM, "EPSG:32633")
    known = raster_item(Path("a.tif"), meta, None, "2024-05-01T10:00:31.5Z")
    assert known["properties"]["datetime"] == "2024-05-01T10:00:31.5Z"
    check_item(known, "x")


def test_bands() -> None:
    item = an_item(
        count=3, dtype="float32", nodata=float("nan"), descriptions=("B04", None, "B04"),
        units=("K", None, ""), scales=(0.1, 1, 1), offsets=(-5.0, 0, float("inf")),
    )  # fmt: skip
    check_item(item, "x")
    first, second, third = item["assets"]["data"]["bands"]
    assert first == {
        "name": "B04 (1)", "data_type": "float32", "nodata": "nan", "unit": "K", "raster:scale": 0.1,
        "raster:offset": -5.0, "raster:spatial_resolution": 10,
    }  # fmt: skip
    assert second["name"] == "band 2 (2)"
    assert "raster:offset" not in third


def test_metres_of_a_pixel() -> None:
    def side_of(transform: Affine | None, code: str | None) -> float | None:
        return pixel_metres(transform, None if code is None else CRS.from_string(code))

    assert side_of(UTM * Affine.scale(1 / 4), "EPSG:32633") == 2.5
    assert side_of(UTM * Affine.rotation(33), "EPSG:32633") == 10
    assert side_of(UTM, "EPSG:2263") == pytest.approx(10 * 0.3048006)  # US survey feet
    assert side_of(UTM, "EPSG:4326") is None
    assert side_of(None, None) is None


def test_size_and_checksum_are_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    fields = file_fields(tmp_path / "a")
    # FIPS 180-2, appendix B.1, as a multihash.
    assert fields["file:checksum"] == "1220ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fields["file:size"] == 3


@pytest.mark.parametrize("name", ["a.tif", "a b#c?%41:d.tif", "é.tif", "\udcff.tif", "..a"])
def test_a_reference_gives_back_the_name(name: str) -> None:
    reference = href(name)
    assert reference.isascii()
    assert file_name(reference) == name


@pytest.mark.parametrize(
    "reference",
    ["/etc/passwd", "../a", "./../a", "./%2e%2e", "./\ud800/b", "./a%2fb", "https://a/b", "./", "./%00", 3],
)
def test_a_reference_to_elsewhere_names_nothing(reference: object) -> None:
    assert file_name(reference) is None


def test_what_is_written_is_read_again_and_always_the_same(tmp_path: Path) -> None:
    item = an_item(descriptions=("[\n 1,\n 2\n]",))
    data = item_bytes(item, "x")
    assert data == item_bytes(copy.deepcopy(item), "x")
    (tmp_path / "x.stac.json").write_bytes(data)
    assert read_item(tmp_path / "x.stac.json") == json.loads(json.dumps(item))
    assert b"[5.0" not in data
    assert b"[10, 20]" in data


@pytest.mark.parametrize("last", [None, "x", True, [1], 1])
def test_lists_of_many_digits_are_written(last: object) -> None:
    """A search that tries 2 ** digits ways would never end."""
    item = an_item()
    item["properties"]["x"] = [*([28.1234567] * 2000), last]
    data = item_bytes(item, "x")
    assert json.loads(data) == json.loads(json.dumps(item))
    assert (b"28.1234567, 28" in data) == (last == 1 and last is not True)


def _set(*place: Any) -> Change:
    *path, last, value = place

    def change(item: dict[str, Any]) -> None:
        for name in path:
            item = item[name]
        item[last] = value

    return change


WRONG: dict[str, Change] = {
    "stac_version": _set("stac_version", "1.0.0"),
    "no id": lambda item: item.pop("id"),
    "geometry without bounds": lambda item: item.pop("bbox"),
    "three bounds": _set("bbox", [0, 0, 1]),
    "longitude": lambda item: item["geometry"]["coordinates"][0].insert(0, [181, 0]),
    "open ring": lambda item: item["geometry"]["coordinates"].append([[0, 0], [1, 1]]),
    "no time": lambda item: item["properties"].pop("datetime"),
    "time without a span": lambda item: item["properties"].pop("end_datetime"),
    "time of a zone": _set("properties", "datetime", "2024-01-01T00:00:00+01:00"),
    "day alone": _set("properties", "datetime", "2024-01-01"),
    "gsd": _set("properties", "gsd", 0),
    "collection": _set("collection", "x"),
    "bands of properties": lambda item: (
        item["properties"].update(bands=[]),
        item["assets"]["data"].pop("bands"),
    ),
    "link without rel": _set("links", [{"href": "./a"}]),
    "reference with a space": _set("links", [{"href": "a b", "rel": "related"}]),
    "data type": lambda item: item["assets"]["data"]["bands"][0].update(data_type="Byte"),
    "nodata": lambda item: item["assets"]["data"]["bands"][0].update(nodata="NaN"),
    "proj:code": _set("properties", "proj:code", 32633),
    "proj:epsg": _set("properties", "proj:epsg", 32633),
    "proj:shape": _set("properties", "proj:shape", [1, 2, 3]),
    "proj:transform": _set("properties", "proj:transform", [1] * 7),
    "raster:scale": lambda item: item["assets"]["data"]["bands"][0].update({"raster:scale": "1"}),
    "raster:bands": _set("assets", "data", "raster:bands", []),
    "raster:sampling": _set("assets", "data", "raster:sampling", "centre"),
    "processing:software": _set("properties", "processing:software", {"geomoe": 1}),
    "processing:steps": _set("properties", "processing:steps", "x"),
    "checksum that is cut": _set("assets", "data", "file:checksum", "1220" + "0" * 62),
    "checksum without a code": _set("assets", "data", "file:checksum", "G" * 64),
    "size": _set("assets", "data", "file:size", -1),
}
WRONG_MODEL: dict[str, Change] = {
    "task": _set("properties", "mlm:tasks", ["super resolution"]),
    "task of one word": _set("properties", "mlm:tasks", "super-resolution"),
    "no input": lambda item: item["properties"].pop("mlm:input"),
    "input without a shape": lambda item: item["properties"]["mlm:input"][0].pop("input"),
    "bands without a dimension": lambda item: item["properties"]["mlm:input"][0].update(bands=["B04"]),
    "a dimension without bands": lambda item: item["properties"]["mlm:output"][0]["result"].update(
        dim_order=["batch", "bands", "height", "width"]
    ),
    "variables without a dimension": lambda item: item["properties"]["mlm:output"][0].update(variables=["t"]),
    "entrypoint that is no code": lambda item: item["assets"]["weights"].update({"mlm:entrypoint": "a.b:c"}),
    "processing without steps": lambda item: item["properties"]["mlm:input"][0].update(
        pre_processing_function=[]
    ),
    "name": _set("properties", "mlm:name", "4x"),
    "version": _set("properties", "mlm:framework_version", "2.13"),
    "unknown field": _set("properties", "mlm:colour", "red"),
    "artifact of an item": _set("properties", "mlm:artifact_type", "x"),
    "asset without artifact": lambda item: item["assets"]["weights"].pop("mlm:artifact_type"),
    "no model among the assets": lambda item: item["assets"]["weights"].update(roles=["data"]),
    "scaling": lambda item: item["properties"]["mlm:input"][0].update(
        value_scaling=[{"type": "z-score", "mean": 0}]
    ),
    "accelerator": _set("properties", "mlm:accelerator", "gpu"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_schemas_refuse(case: str) -> None:
    item = json.loads(json.dumps(an_item()))
    check_item(item, "x")
    WRONG[case](item)
    with pytest.raises(GeomoeError, match="x is not a valid STAC item"):
        check_item(item, "x")


@pytest.mark.parametrize("case", WRONG_MODEL)
def test_the_schema_of_models_refuses(case: str) -> None:
    item = json.loads(json.dumps(a_model()))
    check_item(item, "x")
    WRONG_MODEL[case](item)
    with pytest.raises(GeomoeError, match="x is not a valid STAC item"):
        check_item(item, "x")


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item["properties"]["mlm:input"][0].pop("bands"),
        lambda item: item["assets"]["weights"].update(
            {"mlm:entrypoint": "a.b:c", "roles": ["mlm:model", "code"]}
        ),
        _set("properties", "mlm:tasks", ["downscaling"]),
        _set("stac_extensions", ["https://stac-extensions.github.io/mlm/v1.4.0/schema.json"]),
    ],
)
def test_the_schema_of_models_is_that_of_1_5_and_takes_1_4(change: Change) -> None:
    item = json.loads(json.dumps(a_model()))
    change(item)
    check_item(item, "x")
    item["properties"]["mlm:name"] = "4x"
    with pytest.raises(GeomoeError, match=r"\(mlm\)"):
        check_item(item, "x")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "NaN", '{"type": NaN}', "[" * 100_000, '{"a":' * 50_000, "\xff", '"\\ud800"', "3"]
)
def test_hostile_json_is_one_line_of_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.stac.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(GeomoeError) as caught:
        read_item(tmp_path / "x.stac.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("many", [[1], [{}], [[[["a"]]]]])
def test_items_of_very_many_values_are_not_compared_with_a_schema(many: list[Any]) -> None:
    item = an_item()
    for place in ("links", "stac_extensions"):
        with pytest.raises(GeomoeError, match="more than 10000 values"):
            check_item(item | {place: many * 1_000_000}, "a.stac.json")
    item["geometry"]["coordinates"] *= 20_000
    with pytest.raises(GeomoeError, match="more than 10000 values"):
        check_item(item, "a.stac.json")
    item = an_item()
    item["properties"]["geomoe:reference"] = list(range(100_000))
    check_item(item, "a.stac.json")


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(GeomoeError, match="cannot be written as JSON"):
        item_bytes(an_item() | {"extra": np.nan}, "x")
    item = an_item()
    item["properties"]["title"] = 3
    with pytest.raises(GeomoeError) as caught:
        item_bytes(item | {"id": "\x1b[2J"}, "x")
    assert "\x1b" not in str(caught.value)


def test_pystac_and_the_core_schema_of_others_agree() -> None:
    pystac = pytest.importorskip("pystac")
    for given in (an_item(), an_item(grid=(20, 10, None, None)), a_model()):
        item = json.loads(item_bytes(given, "x"))
        # pystac carries the core's published schemas; extensions' it would fetch.
        pystac.Item.from_dict({**item, "stac_extensions": []}).validate()


def test_a_date_that_is_not_known_is_one_that_readers_hold(tmp_path: Path) -> None:
    """Nanoseconds in 64 bits, as pandas 2 and Arrow have them, end in 1677 and 2262."""
    span = when(None)
    assert span["datetime"] is None
    for end in ("start_datetime", "end_datetime"):
        naive = span[end].removesuffix("Z")
        assert str(np.datetime64(naive, "ns").astype("datetime64[s]")) == naive
    old = {"datetime": None, "start_datetime": "0001-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}
    for said in (span, old):  # an output that is a scene again does not come to have been taken in that year
        item = write_item(tmp_path / "item.json", {}, **said)
        assert read_scene_item("item.json", item.read_bytes()).acquired is None
    item = write_item(tmp_path / "item.json", {}, datetime=None, start_datetime="2020-01-02T00:00:00Z")
    assert read_scene_item("item.json", item.read_bytes()).acquired == "2020-01-02T00:00:00Z"
    assert in_utc("0001-01-01T00:00:00") is None
    assert in_utc("9999-12-31") is None


def test_a_collection_of_items_without_a_date_has_an_extent() -> None:
    pystac = pytest.importorskip("pystac")
    span = pystac.Extent.from_items([pystac.Item.from_dict(an_item())]).temporal.to_dict()["interval"]
    assert span == [["1858-01-01T00:00:00Z", "2261-12-31T23:59:59Z"]]
