"""``geomoe verify``: what was changed is found out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from geomoe.models import read_card
from geomoe.models.weights import save
from geomoe.pipeline import upscale
from tests.cli.test_cli import run
from tests.models.test_models import tiny
from tests.models.test_weights import card_of
from tests.products import write_item, write_safe, zipped
from tests.scenes import UTM, pixels, write_scene

OUT, MAP = "out.tif", "map.tif"


def _save(path: Path, more: float) -> str:
    model = tiny("mfg_hmoe", base="bicubic")
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


ITEM = "out.stac.json"
HARM: dict[str, tuple[Callable[[Path, str], object], str]] = {
    "a pixel": (_pixel, "changed"),
    "a bit": (_bit, "SHA-256"),
    "cut": (lambda f, m: (f / OUT).write_bytes((f / OUT).read_bytes()[:-300]), "truncated|cannot be opened"),
    "another output": (lambda f, m: (f / OUT).write_bytes((f / MAP).read_bytes()), "changed"),
    "no item": (lambda f, m: (f / ITEM).unlink(), r"out\.stac\.json is not there"),
    "item of another": (lambda f, m: (f / "map.stac.json").replace(f / ITEM), "another file"),
    "item is no JSON": (lambda f, m: (f / ITEM).write_text("{"), "cannot be read as JSON"),
    "item is not valid": (_edit(ITEM, lambda item: item.pop("id")), "not a valid STAC item"),
    "no history": (_edit(ITEM, lambda i: i["properties"].pop("geomoe:configuration")), "GEOMOE_WEIGHTS"),
    "history of odd things": (_edit(ITEM, _properties(geomoe__configuration=[1])), "GEOMOE_WEIGHTS"),
    "other weights": (_edit(ITEM, _configuration(weights="0" * 64)), "GEOMOE_WEIGHTS"),
    "other bands": (_edit(ITEM, _configuration(bands=[3, 2, 1])), "GEOMOE_BANDS"),
    "other radiometry": (_edit(ITEM, _configuration(radiometry={})), "GEOMOE_RADIOMETRY"),
    "other scale": (_edit(ITEM, _configuration(contract={"scale": 4})), "GEOMOE_SCALE"),
    "other source": (
        _edit(ITEM, _properties(geomoe__sources=[{"name": "x", "sha256": "0" * 64}])), "GEOMOE_SOURCE",
    ),
    "other shape": (_edit(ITEM, _properties(proj__shape=[1, 2])), "pixels"),
    "other type": (_edit(ITEM, lambda i: i["assets"]["data"]["bands"][0].update(data_type="int8")), "bands"),
    "no asset": (_edit(ITEM, lambda item: item["assets"].clear()), "another file"),
    "no model": (lambda f, m: (f / m).unlink(), "is not there"),
    "no link to the model": (_edit(ITEM, lambda item: item["links"].clear()), "no link to the model"),
    "model is not valid": (_edit("model", _properties(mlm__tasks="x")), "not a valid STAC item"),
    "model of other weights": (_edit("model", _properties(geomoe__weights="0" * 64)), "other weights"),
}  # fmt: skip


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
