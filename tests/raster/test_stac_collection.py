"""Collections as lists of items."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geomoe.errors import GeomoeError
from geomoe.pipeline import Request, read_manifest
from geomoe.raster.stac.collection import read_collection
from tests.products import write_item


def _collection(path: Path, *hrefs: object, **changed: object) -> Path:
    links = [{"rel": "root", "href": "https://example.com/"}, *({"rel": "item", "href": h} for h in hrefs)]
    path.write_text(json.dumps({"type": "Collection", "id": "all", "links": links, **changed}))
    return path


def test_items_are_listed_in_order_and_their_outputs_named_by_id(tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    b, a = (write_item(tmp_path / "items" / f"{name}.json", {}) for name in ("S2B.SAFE_1", "a"))
    path = _collection(tmp_path / "collection.json", "./items/S2B.SAFE_1.json", str(a))
    assert read_collection(path) == [("S2B.SAFE_1", b), ("a", a)]
    assert read_manifest(path, scale=2) == [
        Request(str(b), str(tmp_path / "S2B.SAFE_1_x2.tif"), scale=2),
        Request(str(a), str(tmp_path / "a_x2.tif"), scale=2),
    ]  # fmt: skip


def test_items_of_one_id_do_not_write_over_each_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_item(tmp_path / "a.json", {})
    write_item(tmp_path / "other" / "a.json", {})
    path = _collection(tmp_path / "collection.json", "a.json", "other/a.json")
    with pytest.raises(GeomoeError, match=r"item 2: .*a_x4\.tif is the target of item 1"):
        read_manifest(path)


@pytest.mark.parametrize(
    "href",
    ["https://example.com/a.json", "/vsicurl/a.json", 5, None, "none.json", "/dev/zero", "\ud800.json", "\0"],
)
def test_items_that_are_not_here(tmp_path: Path, href: object) -> None:
    with pytest.raises(GeomoeError, match=r"^[ -~]+$"):
        read_collection(_collection(tmp_path / "collection.json", href))


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\nb", "é" * 300, 7])
def test_ids_that_cannot_name_a_file(tmp_path: Path, name: object) -> None:
    item = {"type": "Feature", "id": name, "assets": {}}
    (tmp_path / "item.json").write_text(json.dumps(item))
    with pytest.raises(GeomoeError, match="can name a file"):
        read_collection(_collection(tmp_path / "collection.json", "item.json"))


def test_what_is_no_collection(tmp_path: Path) -> None:
    for changed in ({"type": "Feature"}, {"links": None}, {"links": {}}):
        with pytest.raises(GeomoeError, match="not a STAC collection"):
            read_collection(_collection(tmp_path / "c.json", **changed))  # type: ignore[arg-type]
    assert read_collection(_collection(tmp_path / "c.json", links=[1, {"rel": "item2"}])) == []
    with pytest.raises(GeomoeError, match="names no scene"):
        read_manifest(tmp_path / "c.json")
