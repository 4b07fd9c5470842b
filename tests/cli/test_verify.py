"""``geomoe verify``: what was changed is found out."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geomoe.models import read_card
from geomoe.models.weights import save
from geomoe.pipeline import upscale
from geomoe.raster import carried_over, open_scene
from geomoe.raster.stac.item import raster_item, read_item
from geomoe.raster.write.target import item_path
from tests.cli.run import run
from tests.models.super_resolution.upscaler import upscaler
from tests.models.test_weights import card_of
from tests.products import write_item, write_safe, zipped
from tests.scenes import UTM, pixels, write_scene

OUT, MAP = "out.tif", "map.tif"


def _save(path: Path, more: float) -> str:
    model = upscaler()
    with torch.no_grad():
        next(model.parameters()).add_(more)
    save(path, model, card_of(model))
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _save(tmp_path_factory.mktemp("weights") / "tiny.safetensors", 0)


@pytest.fixture
def folder(tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output with its map, and a folder in which one is."""
    write_scene(tmp_path / "src.tif", pixels(3, 12, 16, "uint16"), names=["B04", "B03", "B02"])
    upscale(tmp_path / "src.tif", tmp_path / OUT, model=weights, scale=2, experts=tmp_path / MAP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _model(weights: str) -> str:
    return f"tiny.{read_card(Path(weights)).hash[:12]}.stac.json"


def test_it_says_what_made_the_file(capsys: Any, folder: Path, weights: str) -> None:
    status, said, heard = run(capsys, "verify", OUT, "--source", "src.tif", "--weights", weights)
    assert (status, heard) == (0, "")
    facts = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in said.splitlines()}
    assert facts["weights"] == read_card(Path(weights)).hash
    assert facts["source"] == "src.tif"
    assert len(facts["SHA-256"]) == 64
    assert (facts["scale"], facts["bands"], facts["holds"]) == ("2", "1, 2, 3", "B04, B03, B02")
    assert facts["verified"] == "it is as it was made"
    assert len({line.index(line.split("  ")[-1].strip()) for line in said.splitlines()}) == 1


def test_the_map_and_an_item_can_be_named_too(capsys: Any, folder: Path) -> None:
    assert run(capsys, "verify", MAP)[0] == 0
    assert run(capsys, "verify", "map.stac.json")[0] == 0
    (folder / "latest.tif").symlink_to(OUT)
    assert run(capsys, "verify", "latest.tif")[0] == 0


def test_many_have_a_line_each(capsys: Any, folder: Path) -> None:
    status, said, heard = run(capsys, "verify", OUT, MAP)
    assert (status, heard) == (0, "")
    assert said.splitlines() == [
        f"{OUT}: as it was made",
        f"{MAP}: as it was made",
        "2 files, all as they were made",
    ]
    status, said, heard = run(capsys, "verify", OUT, MAP, "src.tif", "none.tif")
    assert status == 1
    assert len(said.splitlines()) == 4
    assert "src.tif was not made by geomoe" in said
    assert heard == "geomoe: error: 2 of 4 files are not as they were made\n"


def _edit(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path, str], object]:
    def harm(folder: Path, model: str) -> None:
        path = folder / (model if name == "model" else name)
        item = json.loads(path.read_text())
        change(item)
        path.write_text(json.dumps(item))

    return harm


def _pixel(folder: Path, model: str) -> None:
    with rasterio.open(folder / OUT, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.write(np.full((3, 1, 1), 77, np.uint16), window=rasterio.windows.Window(3, 3, 1, 1))


def _bit(folder: Path, model: str) -> None:
    data = bytearray((folder / OUT).read_bytes())
    data[-9] ^= 1
    (folder / OUT).write_bytes(bytes(data))


def _properties(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda item: item["properties"].update({key.replace("__", ":"): v for key, v in changes.items()})


def _configuration(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda item: item["properties"]["geomoe:configuration"].update(changes)


def _band(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda item: item["assets"]["data"]["bands"][0].update(changes)


ITEM = "out.stac.json"
SEAL = "the one that was written with it: something in it was changed"
HARM: dict[str, tuple[Callable[[Path, str], object], str]] = {
    "a pixel": (_pixel, "changed"),
    "a bit": (_bit, "SHA-256"),
    "cut": (lambda f, m: (f / OUT).write_bytes((f / OUT).read_bytes()[:-300]), "truncated|cannot be opened"),
    "another output": (lambda f, m: (f / OUT).write_bytes((f / MAP).read_bytes()), "changed"),
    "no item": (lambda f, m: (f / ITEM).unlink(), r"out\.stac\.json is not there"),
    "item of another": (lambda f, m: (f / "map.stac.json").replace(f / ITEM), "another file"),
    "item is no JSON": (lambda f, m: (f / ITEM).write_text("{"), "cannot be read as JSON"),
    "item is not valid": (_edit(ITEM, lambda item: item.pop("id")), "not a valid STAC item"),
    "another id": (_edit(ITEM, lambda item: item.update(id="other")), "none of the outputs"),
    "no history": (_edit(ITEM, lambda i: i["properties"].pop("geomoe:configuration")), SEAL),
    "history of odd things": (_edit(ITEM, _properties(geomoe__configuration=[1])), SEAL),
    "other weights": (_edit(ITEM, _configuration(weights="0" * 64)), SEAL),
    "other bands": (_edit(ITEM, _configuration(bands=[3, 2, 1])), SEAL),
    "other contract": (_edit(ITEM, _configuration(contract={"scale": 4})), SEAL),
    "other source": (_edit(ITEM, _properties(geomoe__sources=[{"name": "x", "sha256": "0" * 64}])), SEAL),
    "other shape": (_edit(ITEM, _properties(proj__shape=[1, 2])), SEAL),
    "a grid of huge numbers": (_edit(ITEM, _properties(proj__transform=[10**400] * 6)), SEAL),
    "no CRS": (_edit(ITEM, lambda i: i["properties"].pop("proj:code")), SEAL),
    "more of a grid": (_edit(ITEM, _properties(proj__projjson={"a": 1})), f"{SEAL}|not a valid"),
    "other place": (_edit(ITEM, lambda i: i["geometry"]["coordinates"][0].reverse()), SEAL),
    "other band": (_edit(ITEM, _band(name="B08")), SEAL),
    "one more asset": (_edit(ITEM, lambda i: i["assets"].update(a={"href": "./a"})), SEAL),
    "other title": (_edit(ITEM, _properties(title="mine")), SEAL),
    "other lineage": (_edit(ITEM, lambda i: i["properties"].update({"processing:lineage": "x"})), SEAL),
    "other software": (_edit(ITEM, _properties(processing__software={"torch": "1"})), SEAL),
    "other outputs": (_edit(ITEM, _configuration(outputs=["a.tif"])), "none of the outputs"),
    "outputs in turn": (_edit(ITEM, _configuration(outputs=[MAP, OUT])), "none of the outputs"),
    "outputs of odd things": (_edit(ITEM, _configuration(outputs=[[], 1])), "none of the outputs"),
    "no asset": (_edit(ITEM, lambda item: item["assets"].clear()), "another file"),
    "no link to the model": (_edit(ITEM, lambda item: item["links"].clear()), "no link to the model"),
    "model is not valid": (_edit("model", _properties(mlm__tasks="x")), "not a valid STAC item"),
    "model of other weights": (_edit("model", _properties(geomoe__weights="0" * 64)), "other weights"),
    "model of another name": (_edit("model", lambda i: i.update(id="other")), "another model"),
    "model of another contract": (_edit("model", _properties(geomoe__contract={})), "two contracts"),
}  # fmt: skip


@pytest.mark.parametrize("name", [OUT, MAP])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("move", [shutil.copy, shutil.move])
def test_file_and_item_that_were_renamed_or_copied_together_verify(
    capsys: Any, folder: Path, weights: str, name: str, elsewhere: bool, move: Callable[[Path, Path], object]
) -> None:
    place = folder / "elsewhere" if elsewhere else folder
    place.mkdir(exist_ok=True)
    item = name.replace(".tif", ".stac.json")
    move(folder / name, place / "new.tif")
    move(folder / item, place / "new.stac.json")
    for given in ("new.tif", "new.stac.json"):
        status, said, heard = run(
            capsys, "verify", place / given, "--source", "src.tif", "--weights", weights
        )
        assert (status, heard) == (0, "")
        assert f"written as  {name}, to which its item's links point" in said
        assert (f"{_model(weights)} is not beside it, and not checked" in said) == elsewhere
    _edit("new.stac.json", _properties(title="mine"))(place, "")
    assert run(capsys, "verify", place / "new.tif")[0] == 1, "what was changed is found out as ever"


def test_items_that_were_swapped_are_found_out(capsys: Any, folder: Path) -> None:
    out, other = folder / ITEM, folder / "map.stac.json"
    texts = out.read_text(), other.read_text()
    out.write_text(texts[1])
    other.write_text(texts[0])
    for name in (OUT, MAP):
        status, _, heard = run(capsys, "verify", name)
        assert (status, "its item is of another file" in heard) == (1, True)


@pytest.mark.parametrize("case", HARM)
def test_what_was_changed_is_found_out(capsys: Any, folder: Path, weights: str, case: str) -> None:
    harm, said = HARM[case]
    harm(folder, _model(weights))
    status, _, heard = run(capsys, "verify", OUT)
    assert status == 1
    assert heard.startswith("geomoe: error: ")
    assert heard.count("\n") == 1
    assert re.search(said, heard), heard


def test_another_scene_and_other_weights(capsys: Any, folder: Path, tmp_path: Path) -> None:
    with rasterio.open("src.tif", "r+") as file:
        file.update_tags(NOTE="touched")
    status, _, heard = run(capsys, "verify", OUT, "--source", "src.tif")
    assert (status, "was not made of src.tif, or that was changed since" in heard) == (1, True)
    other = _save(tmp_path / "other.safetensors", 1)
    status, _, heard = run(capsys, "verify", OUT, "--weights", other)
    assert (status, "other weights than other" in heard) == (1, True)
    assert run(capsys, "verify", OUT, "--weights", "nothing")[0] == 1
    assert run(capsys, "verify", OUT, "--source", "none.tif")[0] == 1


def test_a_foreign_file_is_no_output(capsys: Any, folder: Path) -> None:
    status, said, heard = run(capsys, "verify", "src.tif")
    assert (status, said) == (1, "")
    assert "src.tif was not made by geomoe" in heard
    (folder / "vrt.tif").write_text("<VRTDataset/>")
    assert run(capsys, "verify", "vrt.tif")[0] == 1


@pytest.mark.parametrize("href", ["../out.tif", "/etc/passwd", "https://x.org/out.tif", "./a%2Fout.tif"])
def test_an_item_names_no_file_elsewhere(capsys: Any, folder: Path, href: str) -> None:
    _edit(ITEM, lambda item: item["assets"]["data"].update(href=href))(folder, "")
    status, _, heard = run(capsys, "verify", ITEM)
    assert (status, "names no file beside it" in heard) == (1, True)


def test_a_terminal_is_not_told_what_to_do(capsys: Any, folder: Path) -> None:
    _edit(ITEM, _properties(geomoe__sources=[{"name": "\x1b]0;x\x07\nverified", "sha256": 1}]))(folder, "")
    _, said, heard = run(capsys, "verify", OUT)
    assert "\x1b" not in said + heard
    assert "\x07" not in said + heard


@pytest.mark.parametrize("bands", [None, "B8A,B11", "red,B11", "2", "B05"])
def test_a_product_is_known_again_with_the_bands_that_were_used(
    capsys: Any, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch, bands: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    packed = zipped(write_safe(tmp_path / "p.SAFE"), tmp_path / "p.zip")
    for source in ("p.SAFE", "p.zip"):
        upscale(source, OUT, model=weights, scale=2, bands=bands, experts=MAP, overwrite=True)
        for output in (OUT, MAP):
            for other in ("p.SAFE", "p.zip"):
                assert run(capsys, "verify", output, "--source", other)[::2] == (0, "")
    said = json.loads((tmp_path / ITEM).read_text())
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    assert said["properties"]["geomoe:sources"] == [{"name": "p.zip", "sha256": digest}]
    assert {link["type"] for link in said["links"] if link["rel"] == "derived_from"} == {"application/zip"}
    other = write_safe(tmp_path / "q.SAFE", offsets={})
    status, _, heard = run(capsys, "verify", OUT, "--source", str(other))
    assert (status, "was not made of q.SAFE" in heard) == (1, True)


@pytest.mark.parametrize("bands", [None, "B04_20m", "B04,B02", "red", "1"])
def test_an_item_is_known_again_with_the_bands_that_were_used(
    capsys: Any, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch, bands: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    assets = {}
    for band, common in (("B02", "blue"), ("B04", "red")):
        for size in (10, 20):
            key = f"{band}_{size}m"
            write_scene(
                tmp_path / f"{key}.tif", pixels(1, 240 // size, 240 // size, "uint16", seed=size),
                transform=UTM * UTM.scale(size / 10),
            )  # fmt: skip
            assets[key] = {"href": f"{key}.tif", "eo:bands": [{"name": band, "common_name": common}]}
    write_item(tmp_path / "item.json", assets)
    upscale("item.json", OUT, model=weights, scale=2, bands=bands)
    assert run(capsys, "verify", OUT, "--source", "item.json")[::2] == (0, "")
    (tmp_path / "item.json").unlink()
    assert run(capsys, "verify", OUT, "--source", "item.json")[0] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"license": "MIT"},
        {"mlm__total_parameters": 1},
        {"mlm__name": "other"},
        {"geomoe__scores": {"PSNR": 99}},
    ],
)
def test_what_the_model_says_is_what_its_weights_say(
    capsys: Any, folder: Path, weights: str, changes: dict[str, Any]
) -> None:
    (folder / "renamed.safetensors").write_bytes(Path(weights).read_bytes())
    _edit("model", _properties(mlm__framework_version="1.2.3"))(folder, _model(weights))  # another machine's
    assert run(capsys, "verify", OUT, "--weights", "renamed.safetensors")[0] == 0
    _edit("model", _properties(**changes))(folder, _model(weights))
    status, _, heard = run(capsys, "verify", OUT, "--weights", weights)
    assert (status, "does not say what the weights say" in heard) == (1, True)


def _says_what_is(path: Path) -> None:
    """Hold what an item says of its file, place, grid and bands, against what is in the file."""
    with open_scene(path) as scene:
        meta = carried_over(scene, range(1, scene.count + 1), 1, {})
        now, said = raster_item(path, meta, scene.nodata, None), read_item(item_path(path))
    assert now["assets"]["data"].items() <= said["assets"]["data"].items()
    for key in ("proj:code", "proj:shape", "proj:transform", "proj:bbox", "bbox"):
        one, other = ({**item, **item["properties"]}.get(key) for item in (said, now))
        # Where pixels are points, a file has the corner half a pixel away, up to rounding.
        assert one == (pytest.approx(other, rel=1e-8, abs=2e-9) if isinstance(other, list) else other), key


_ALBERS = "+proj=aea +lat_1=10.3 +lat_2=47.7 +lat_0=3 +lon_0=-75.123456789 +datum=WGS84 +units=m"
_TURNED = Affine.translation(4.4e5 + 1 / 3, 4.2e6) * Affine.rotation(17) * Affine.scale(1.7, -1.7)


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        ("uint8", {"transform": None, "crs": None}),
        ("uint16", {"transform": _TURNED, "nodata": 65535}),
        ("int16", {"crs": _ALBERS, "nodata": -32768}),
        ("float32", {"nodata": -3.4028234663852886e38}),
        (
            "float32",
            {"nodata": 0.1, "transform": Affine(1 / 3600, 0, 179.9, 0, -1 / 3600, 3), "crs": "EPSG:4326"},
        ),
        ("float32", {"crs": "EPSG:2263"}),  # in feet
    ],
)
@pytest.mark.parametrize("point", [False, True])
def test_nothing_is_found_wrong_with_what_is_right(
    capsys: Any, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch, dtype: str,
    said: dict[str, Any], point: bool,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    data = pixels(3, 12, 16, dtype)
    if dtype == "float32" and "nodata" not in said:
        data[:, :3, :3] = np.nan
    write_scene(tmp_path / "src.tif", data, names=["a", "a", ""], **said)
    with rasterio.open("src.tif", "r+") as file:
        file.scales, file.offsets, file.units = (1e-4, 1 / 3, 1.0), (-0.1, 0, 7), ("K", "", "m")
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2024-05-01T10:00:31.5")
        if point:
            file.update_tags(AREA_OR_POINT="Point")
    upscale("src.tif", OUT, model=weights, scale=2, experts=MAP, consistency="c.tif")
    for output in (OUT, MAP, "c.tif"):
        assert run(capsys, "verify", output, "--source", "src.tif", "--weights", weights)[::2] == (0, "")
        _says_what_is(tmp_path / output)
    _edit(ITEM, _properties(datetime="2025-01-01T00:00:00Z"))(tmp_path, "")
    status, _, heard = run(capsys, "verify", OUT)
    assert (status, SEAL in heard) == (1, True)
