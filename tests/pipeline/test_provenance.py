"""What the items beside outputs say, and that they come and go with them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geomoe.errors import GeomoeError
from geomoe.models import available_weights, load
from geomoe.pipeline import SceneReport, upscale
from geomoe.pipeline import checkpoint as work_module
from geomoe.pipeline.history import model_item_name
from geomoe.pipeline.provenance import model_item
from geomoe.raster.stac.item import check_item, item_bytes, read_item
from tests.pipeline.fakes import FakeUpscaler, nearest
from tests.scenes import left_over, pixels, write_scene

MODEL = "fake.0123abcd.stac.json"


def _run(folder: Path, **options: Any) -> SceneReport:
    given: dict[str, Any] = {"model": nearest(4), "experts": folder / "map.tif", **options}
    return upscale(folder / "src.tif", folder / "out.tif", **given)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_scene(tmp_path / "src.tif", pixels(3, 20, 30, "uint16"), nodata=0, names=["B04", "B03", "B02"])
    return tmp_path


def test_every_output_has_an_item_and_the_model_one(folder: Path) -> None:
    report = _run(folder)
    assert report.items == (folder / "out.stac.json", folder / "map.stac.json")
    assert report.model_item == folder / MODEL
    assert left_over(folder) == [MODEL, "map.stac.json", "map.tif", "out.stac.json", "out.tif", "src.tif"]
    item = read_item(folder / "out.stac.json")
    asset = item["assets"]["data"]
    assert asset["file:checksum"] == "1220" + hashlib.sha256((folder / "out.tif").read_bytes()).hexdigest()
    assert asset["file:size"] == (folder / "out.tif").stat().st_size
    assert [(band["name"], band["nodata"]) for band in asset["bands"]] == [("B04", 0), ("B03", 0), ("B02", 0)]
    assert asset["bands"][0]["raster:spatial_resolution"] == 2.5
    assert item["properties"]["gsd"] == 10  # the sensor sees no finer than it did
    assert item["properties"]["proj:shape"] == [80, 120]
    assert item["bbox"] == pytest.approx([-75.6955, 37.7353, -75.6921, 37.7372], abs=1e-3)
    links = {(link["rel"], link["href"]) for link in item["links"]}
    assert links == {("derived_from", "./src.tif"), ("related", "./map.stac.json"), ("related", f"./{MODEL}")}
    experts = read_item(folder / "map.stac.json")
    assert [band["name"] for band in experts["assets"]["data"]["bands"]] == [
        "group", "expert", "confidence", "entropy",
    ]  # fmt: skip
    assert ("related", "./out.stac.json") in {(link["rel"], link["href"]) for link in experts["links"]}
    assert experts["geometry"] == item["geometry"]


def test_the_configuration_is_all_that_the_pixels_depend_on_and_no_path(folder: Path) -> None:
    _run(folder, bands="2,1", tile=8)
    text = (folder / "out.stac.json").read_text()
    said = json.loads(text)["properties"]
    configuration = said["geomoe:configuration"]
    assert configuration["bands"] == [2, 1]
    assert configuration["tile"] == 8
    assert configuration["weights"] == "0123abcd"
    assert configuration["contract"]["scale"] == 4
    assert len(configuration["radiometry"]["low"]) == 2
    assert configuration["outputs"] == ["out.tif", "map.tif"]
    digest = hashlib.sha256((folder / "src.tif").read_bytes()).hexdigest()
    assert said["geomoe:sources"] == [{"name": "src.tif", "sha256": digest}]
    assert set(said["processing:software"]) == {"geomoe", "torch", "rasterio", "gdal"}
    assert str(folder) not in text
    assert folder.name not in text


def test_a_scene_of_another_folder_is_named_without_it(folder: Path) -> None:
    (folder / "out").mkdir()
    upscale(folder / "src.tif", folder / "out" / "o.tif", model=nearest(4), experts=folder / "m.tif")
    item = read_item(folder / "out" / "o.stac.json")
    assert [link["href"] for link in item["links"]] == [f"./{MODEL}"]
    assert (folder / MODEL).read_bytes() == (folder / "out" / MODEL).read_bytes()


def test_a_scene_without_a_place_has_an_item_without_one(tmp_path: Path) -> None:
    write_scene(tmp_path / "src.tif", pixels(3, 8, 8, "float32"), transform=None, crs=None)
    _run(tmp_path, experts=None)
    item = read_item(tmp_path / "out.stac.json")
    assert item["geometry"] is None
    assert "gsd" not in item["properties"]


def test_the_time_of_a_scene_is_that_of_its_item(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomoe.raster.read.scene._acquired", lambda source: "2024-05-01T10:00:31Z")
    _run(folder)
    assert read_item(folder / "out.stac.json")["properties"]["datetime"] == "2024-05-01T10:00:31Z"


def test_nan_that_was_written_is_nodata_that_was_not_is_none(tmp_path: Path) -> None:
    data = pixels(3, 8, 8, "float32")
    for name, hole in (("whole", False), ("holed", True)):
        data[:, 2:4, 2:4] = float("nan") if hole else 1
        (tmp_path / name).mkdir()
        write_scene(tmp_path / name / "src.tif", data)
        _run(tmp_path / name)
        band = read_item(tmp_path / name / "out.stac.json")["assets"]["data"]["bands"][0]
        assert band.get("nodata") == ("nan" if hole else None)


def test_the_model_says_what_its_card_says() -> None:
    for name in available_weights():
        model = load(name)
        if not model.contract.gives("image"):
            continue
        item = json.loads(item_bytes(model_item(model), name))
        said = item["properties"]
        assert said["mlm:name"] == name
        assert said["mlm:tasks"] == ["super-resolution"]
        assert said["mlm:total_parameters"] == sum(p.numel() for p in model.model.parameters())
        assert said["mlm:hyperparameters"]["scale"] == model.contract.scale
        assert said["mlm:input"][0]["input"]["shape"] == [-1, model.contract.bands, -1, -1]
        assert said["geomoe:weights"] == model.hash
        assert said["geomoe:scores"] == model.card.scores
        assert said["license"] == model.card.licence
        assert "UC Merced" in said["mlm:pretrained_source"]
        assert said["start_datetime"].startswith(model.card.date)


@pytest.mark.parametrize("name", ["4x", "a", "ünï çøde", "ø" * 250, "-", "../a/b", "\udcff"])
def test_models_of_any_name_have_items(tmp_path: Path, name: str) -> None:
    fake = nearest()
    check_item(model_item(FakeUpscaler(fake.model, fake.contract, name)), name)
    place = tmp_path / model_item_name(name, "../../0123abcd", None)
    place.write_text("a file can have it")
    assert place.parent == tmp_path


def test_a_card_of_any_content_has_an_item() -> None:
    model = load("mfg_hmoe_light_x4")
    card = replace(
        model.card,
        scores={"accuracy": float("nan")},
        date=3,
        licence="see the file",
        data=["x"],  # type: ignore[arg-type]
    )
    said = json.loads(item_bytes(model_item(replace(model, card=card)), "x"))["properties"]
    assert said["geomoe:scores"] == {"accuracy": "NaN"}
    assert "license" not in said


def test_an_item_that_would_not_be_valid_is_refused_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geomoe.raster.stac.item.when", lambda acquired: {"datetime": "yesterday"})
    with pytest.raises(GeomoeError, match=r"out\.stac\.json is not a valid STAC item"):
        _run(folder)
    assert left_over(folder) == ["src.tif"]


def test_an_item_that_stands_there_is_not_overwritten(folder: Path) -> None:
    (folder / "out.stac.json").write_text("mine")
    with pytest.raises(GeomoeError, match=r"out\.stac\.json exists already"):
        _run(folder)
    _run(folder, overwrite=True)
    assert read_item(folder / "out.stac.json")["id"] == "out"
    (folder / "folder.stac.json").mkdir()
    with pytest.raises(GeomoeError, match="is a folder"):
        upscale(folder / "src.tif", folder / "folder.tif", model=nearest(4))
    with pytest.raises(GeomoeError, match="but for their endings"):
        upscale(folder / "src.tif", folder / "a.tif", model=nearest(4), experts=folder / "a.tiff")


@pytest.mark.parametrize("broken", range(4))
@pytest.mark.parametrize("links", [True, False])
def test_a_move_that_fails_puts_back_the_files_and_their_items(
    folder: Path, monkeypatch: pytest.MonkeyPatch, broken: int, links: bool
) -> None:
    names = ("out.tif", "out.stac.json", "map.tif", "map.stac.json")
    for name in names:
        (folder / name).write_text(f"old {name}")
    usual: Callable[[Any, Any], None] = os.replace

    def fails(source: Path, target: Path) -> None:
        if Path(target).name == names[broken] and Path(source).name.startswith("part"):
            raise OSError(28, "No space left on device", str(target))
        usual(source, target)

    monkeypatch.setattr(os, "replace", fails)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no second names")))
    with pytest.raises(GeomoeError, match="cannot put"):
        _run(folder, overwrite=True)
    assert [(folder / name).read_text() for name in names] == [f"old {name}" for name in names]


def test_the_models_item_is_shared_and_made_right(folder: Path) -> None:
    _run(folder)
    first = (folder / MODEL).stat().st_ino
    upscale(folder / "src.tif", folder / "two.tif", model=nearest(4))
    assert (folder / MODEL).stat().st_ino == first
    right = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(right.replace(b"PyTorch", b"PaTorch"))
    assert (folder / MODEL).read_bytes() != right
    upscale(folder / "src.tif", folder / "three.tif", model=nearest(4))
    assert (folder / MODEL).read_bytes() == right


def test_a_models_item_that_was_lost_before_the_files_were_placed_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(moves: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(work_module, "commit", cut)
        with pytest.raises(KeyboardInterrupt):
            _run(folder)
    assert [name for name in left_over(folder) if not name.startswith(".")] == [MODEL, "src.tif"]
    (folder / MODEL).unlink()
    _run(folder)
    assert read_item(folder / MODEL)["properties"]["geomoe:weights"] == "0123abcd"


@pytest.mark.parametrize("full", ["part.json", "commit", MODEL])
def test_a_disk_that_is_full_at_an_item_leaves_nothing_and_is_gone_on_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    usual = work_module._write_whole

    def fails(path: Path, data: bytes, *where: Path) -> None:
        if path.name == full:
            raise OSError(28, "No space left on device")
        usual(path, data, *where)

    with monkeypatch.context() as patch:
        patch.setattr(work_module, "_write_whole", fails)
        with pytest.raises(GeomoeError, match="cannot write"):
            _run(folder)
    assert [name for name in left_over(folder) if not name.startswith(".")] == ["src.tif"]
    _run(folder)
    assert left_over(folder) == [MODEL, "map.stac.json", "map.tif", "out.stac.json", "out.tif", "src.tif"]


def test_other_readers_read_the_items(folder: Path) -> None:
    pystac = pytest.importorskip("pystac")
    file = pytest.importorskip("pystac.extensions.file")
    projection = pytest.importorskip("pystac.extensions.projection")
    report = upscale(
        folder / "src.tif", folder / "out.tif", model="mfg_hmoe_light", experts=folder / "map.tif"
    )
    item = pystac.Item.from_file(str(report.items[0]))
    asset = item.assets["data"]
    assert Path(asset.get_absolute_href()) == folder / "out.tif"
    assert asset.media_type == pystac.MediaType.COG
    assert file.FileExtension.ext(asset).size == (folder / "out.tif").stat().st_size
    grid = projection.ProjectionExtension.ext(item)
    assert (grid.code, grid.shape, grid.epsg) == ("EPSG:32618", [80, 120], 32618)
    assert grid.transform[0] == 2.5
    related = [link.absolute_href for link in item.get_links("related")]
    assert related == [str(folder / "map.stac.json"), str(report.model_item)]


def test_other_readers_read_the_model(tmp_path: Path) -> None:
    pystac = pytest.importorskip("pystac")
    mlm = pytest.importorskip("pystac.extensions.mlm")
    model = load("mfg_hmoe_light_x4")
    path = tmp_path / model_item_name(model.name, model.hash, None)
    path.write_bytes(item_bytes(model_item(model), path.name))
    item = pystac.Item.from_file(str(path))
    said = mlm.MLMExtension.ext(item, add_if_missing=True)  # pystac 1.15 knows no version after 1.4
    assert said.mlm_name == "mfg_hmoe_light_x4"
    assert said.tasks == [mlm.TaskType.SUPER_RESOLUTION]
    assert said.framework == "PyTorch"
    assert said.total_parameters == 1151125
    assert said.input[0].input.dim_order == ["batch", "channel", "height", "width"]
    assert said.input[0].input.data_type == "float32"
    assert said.output[0].result.shape == [-1, 3, -1, -1]
    weights = mlm.AssetGeneralMLMExtension.ext(item.assets["weights"])
    assert weights.artifact_type == "safetensors.torch.save_file"


def test_a_validator_of_others_takes_them(folder: Path) -> None:
    pydantic = pytest.importorskip("stac_pydantic")
    report = _run(folder)
    for path in (*report.items, report.model_item):
        pydantic.Item.model_validate(json.loads(path.read_text()))


def test_no_time_of_writing(folder: Path) -> None:
    report = _run(folder)
    before = [path.read_bytes() for path in (*report.items, report.model_item)]
    shutil.copy2(folder / "src.tif", folder / "kept.tif")
    os.utime(folder / "src.tif", (0, 0))
    again = _run(folder, overwrite=True)
    assert [path.read_bytes() for path in (*again.items, again.model_item)] == before
