"""What a model that sees whole samples says of images and scenes, as a table."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affine import Affine
from PIL import Image

from geomoe.errors import GeomoeError
from geomoe.models.weights import LoadedModel, load, save
from geomoe.pipeline import check_table, predict, predict_table, verify
from geomoe.raster.formats.watch import ChangedError
from geomoe.raster.stac.item import sha256
from tests.models.test_label_models import CLASSES, tiny
from tests.models.test_weights import card_of
from tests.scenes import UTM, pixels, write_scene

SIDE = 16


def weights(folder: Path, **options: Any) -> LoadedModel:
    model = tiny("convnext_t", **options)
    card = replace(card_of(model), model="convnext_t", task="classification", recipe={"size": SIDE})
    save(folder / "scenes.safetensors", model, card)
    return load(str(folder / "scenes.safetensors"))


def answers(model: LoadedModel, images: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        made: torch.Tensor = model.model(torch.from_numpy(images.astype(np.float32)))
    return made


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_images_of_a_folder_have_a_row_each_with_label_and_probability(tmp_path: Path) -> None:
    model, data = weights(tmp_path), pixels(3, SIDE, 2 * SIDE, "uint8")
    parts = [data[:, :, :SIDE], data[:, :, SIDE:]]
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name, part in zip(("a.png", "deep/b.png"), parts, strict=True):
        Image.fromarray(np.moveaxis(part, 0, 2)).save(tmp_path / "in" / name)
    done = predict_table(tmp_path / "in", tmp_path / "t.csv", model=model, device="cpu")
    assert (done.rows, done.of) == (2, "images")
    rows = rows_of(tmp_path / "t.csv")
    assert [row["image"] for row in rows] == ["a.png", "deep/b.png"]
    shares = answers(model, np.stack(parts) / np.float32(255)).softmax(1)
    for row, share in zip(rows, shares, strict=True):
        assert row["name"] == CLASSES[int(share.argmax())] == CLASSES[int(row["class"]) - 1]
        assert float(row["confidence"]) == pytest.approx(float(share.max()), abs=1e-4)


def test_windows_of_a_scene_have_a_place_and_those_without_data_no_row(src: Path, tmp_path: Path) -> None:
    model, data = weights(tmp_path), pixels(3, 20, 50, "uint8")
    data[data == 0] = 1
    data[:, :, 16:32] = 0
    data[:, :4, :2] = 0
    write_scene(src, data, nodata=0)
    done = predict_table(src, tmp_path / "t.geojson", model=model, device="cpu")
    assert (done.rows, done.of, done.empty, done.window) == (6, "windows", 2, SIDE)
    found = json.loads((tmp_path / "t.geojson").read_text())
    assert found["geomoe"]["weights"] == model.hash
    rows = [feature["properties"] for feature in found["features"]]
    assert [(row["x"], row["y"]) for row in rows] == [(x, y) for y in (0, 4) for x in (0, 32, 34)]
    assert [row["valid"] for row in rows[:2]] == [round(1 - 8 / 256, 4), 1]
    shares = answers(model, data[None, :, :16, 32:48] / np.float32(255)).softmax(1)[0]
    assert rows[1]["name"] == CLASSES[int(shares.argmax())]
    assert rows[1]["confidence"] == pytest.approx(float(shares.max()), abs=1e-4)
    corner = np.array(found["features"][1]["geometry"]["coordinates"][0])
    from rasterio.warp import transform

    west, north = UTM * (32, 0)
    [lon], [lat] = transform("EPSG:32618", "EPSG:4326", [west], [north])
    assert np.abs(corner - [lon, lat]).sum(1).min() < 1e-6


def test_features_are_columns_of_numbers(src: Path, tmp_path: Path) -> None:
    model, data = weights(tmp_path, classes=()), pixels(3, SIDE, SIDE, "uint8")
    predict_table(write_scene(src, data), tmp_path / "t.csv", model=model, device="cpu")
    [row] = rows_of(tmp_path / "t.csv")
    wanted = answers(model, data[None] / np.float32(255))[0].numpy()
    assert [float(row[f"feature_{i}"]) for i in range(1, len(wanted) + 1)] == pytest.approx(
        wanted, rel=1e-4, abs=1e-5
    )


def test_what_cannot_be_a_table_is_refused_in_one_line(src: Path, tmp_path: Path, settings: Any) -> None:
    model = weights(tmp_path)
    write_scene(src, pixels(3, 20, 20, "uint8"), transform=None, crs=None)
    (tmp_path / "there.csv").touch()
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "a.png")
    for given, out, of, says in (
        (src, "t.geojson", model, "no transform and CRS"),
        (src, "there.csv", model, "exists already"),
        (src, "t.txt", model, "a table ends in .csv or .geojson"),
        (src, "none/t.csv", model, "does not exist; create it first"),
        (tmp_path / "nothing", "t.csv", model, "does not exist; give a folder of images, or a scene"),
        (tmp_path / "in", "t.geojson", model, "have no place on the ground; write t.csv"),
        (src, "t.csv", load(str(settings.model)), "gives an image of 3 bands, no row of a table"),
    ):
        with pytest.raises(GeomoeError, match=says) as caught:
            predict_table(given, tmp_path / out, model=of, device="cpu")
        assert "\n" not in str(caught.value)
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "MTD_MSIL2A.xml").touch()  # a product is one by whatever name
    with pytest.raises(GeomoeError, match=r"MTD_MSIL2A\.xml"):
        predict_table(tmp_path / "unpacked", tmp_path / "t.csv", model=model, device="cpu")
    write_scene(src, pixels(4, 20, 20, "uint8"))
    with pytest.raises(GeomoeError, match="has 4 bands of data, the model takes 3"):
        predict_table(src, tmp_path / "t.csv", model=model, device="cpu")
    with pytest.raises(GeomoeError, match=f"gives a label of {len(CLASSES)} classes, no map of a scene"):
        predict(src, tmp_path / "t.tif", model=model, device="cpu")
    assert not [*tmp_path.glob("t.*")]


@pytest.mark.parametrize(
    ("options", "radiometry", "says"),
    [
        ({"bands": "3,2,1"}, "unit", "--bands is for a scene; leave it out for a folder of images"),
        ({"nodata": 0.0}, "unit", "--nodata is for a scene"),
        ({"tile": 8}, "unit", "--tile is for a scene"),
        ({}, "values", "scenes takes values as they are, and images of a folder are brought to 0 to 1"),
    ],
)
def test_what_images_of_a_folder_do_not_have_is_not_passed_over(
    tmp_path: Path, options: dict[str, Any], radiometry: str, says: str
) -> None:
    model = weights(tmp_path)
    model = replace(model, card=replace(model.card, radiometry=radiometry))
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "a.png")
    with pytest.raises(GeomoeError, match=says):
        predict_table(tmp_path / "in", tmp_path / "t.csv", model=model, device="cpu", **options)
    assert not (tmp_path / "t.csv").exists()


def test_what_cannot_be_written_is_told_before_the_work(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene(src, pixels(3, SIDE, SIDE, "uint8"))
    (tmp_path / "d.csv").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "kept.csv").touch()
    may = os.access

    def access(path: Any, mode: int) -> bool:  # who is root may all
        return Path(path).name not in ("closed", "kept.csv") and may(path, mode)

    monkeypatch.setattr(os, "access", access)
    for out, says in (
        (tmp_path / "d.csv", "is a folder; give the name of a file"),
        (tmp_path / "closed" / "t.csv", "is not writable; choose another"),
        (tmp_path / "kept.csv", "is write-protected"),
        ("s3://there/t.csv", "is not a local path"),
    ):
        with pytest.raises(GeomoeError, match=says):
            check_table(src, out, overwrite=True)


def test_what_made_a_table_stands_beside_it(src: Path, tmp_path: Path) -> None:
    model, out = weights(tmp_path), tmp_path / "t.csv"
    write_scene(src, pixels(3, SIDE, SIDE, "uint8"))
    predict_table(src, out, model=model, device="cpu")
    said = json.loads((tmp_path / "t.csv.json").read_text())
    assert said["table"] == {"name": "t.csv", "sha256": sha256(out)}
    assert said["sources"] == [{"name": "src.tif", "sha256": sha256(src)}]
    assert (said["weights"], said["options"]["mean"]) == (model.hash, [0.5])
    assert (said["bands"], said["tile"], said["radiometry"]["high"]) == ([1, 2, 3], SIDE, [255.0] * 3)
    out.unlink()
    with pytest.raises(GeomoeError, match=r"t\.csv\.json exists already"):
        predict_table(src, out, model=model, device="cpu")
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "a.png")
    predict_table(tmp_path / "in", out, model=model, device="cpu", overwrite=True)
    said = json.loads((tmp_path / "t.csv.json").read_text())
    assert said["sources"] == [{"name": "a.png", "sha256": sha256(tmp_path / "in" / "a.png")}]
    predict_table(src, tmp_path / "t.geojson", model=model, device="cpu")
    assert json.loads((tmp_path / "t.geojson").read_text())["geomoe"]["sources"][0]["name"] == "src.tif"


@pytest.mark.parametrize("of", ["scene", "folder"])
def test_what_changes_while_it_is_read_has_no_table(src: Path, tmp_path: Path, of: str) -> None:
    model, image = weights(tmp_path), tmp_path / "in" / "a.png"
    write_scene(src, pixels(3, SIDE, SIDE, "uint8"))
    image.parent.mkdir()
    Image.new("RGB", (4, 4)).save(image)
    changing = src if of == "scene" else image

    def change(done: int, total: int) -> None:
        changing.write_bytes(changing.read_bytes() + b"0")

    given = src if of == "scene" else image.parent
    with pytest.raises(ChangedError, match=f"{changing.name} changed while it was read"):
        predict_table(given, tmp_path / "t.csv", model=model, device="cpu", progress=change)
    assert not [*tmp_path.glob("t.*")]


def test_windows_lie_on_a_turned_grid(src: Path, tmp_path: Path) -> None:
    model, turned = (
        weights(tmp_path),
        Affine.translation(4e5, 5e6) * Affine.rotation(30) * Affine.scale(10, -10),
    )
    write_scene(src, pixels(3, SIDE, 2 * SIDE, "uint8"), transform=turned)
    predict_table(src, tmp_path / "t.geojson", model=model, device="cpu")
    one, other = json.loads((tmp_path / "t.geojson").read_text())["features"]
    rings = [np.array(each["geometry"]["coordinates"][0]) for each in (one, other)]
    assert len({*map(tuple, rings[0].round(7))} & {*map(tuple, rings[1].round(7))}) == 2  # a side in common


@pytest.fixture
def made(src: Path, tmp_path: Path) -> LoadedModel:
    """Tables of a scene, both kinds, and of a folder of images; the model of all three."""
    model = weights(tmp_path)
    write_scene(src, pixels(3, SIDE, 2 * SIDE, "uint8"))
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "a.png")
    for given, name in ((src, "t.csv"), (src, "t.geojson"), (tmp_path / "in", "f.csv")):
        predict_table(given, tmp_path / name, model=model, device="cpu")
    return model


def test_tables_are_verified_as_maps_are(src: Path, tmp_path: Path, made: LoadedModel) -> None:
    for name, of in (("t.csv", src), ("t.csv.json", src), ("t.geojson", src), ("f.csv", tmp_path / "in")):
        found = verify(tmp_path / name, source=of, weights=str(made.path))
        assert found.faults == ()
        assert found.path.name == name.removesuffix(".json")
        assert (found.facts["model"], found.facts["weights"]) == (made.name, made.hash)
    assert found.facts["source"] == "a.png"


def test_what_was_changed_of_a_table_is_found(src: Path, tmp_path: Path, made: LoadedModel) -> None:
    def changed(name: str, old: str, new: str) -> str:
        text = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(text.replace(old.encode(), new.encode(), 1))
        assert (tmp_path / name).read_bytes() != text
        [fault] = verify(tmp_path / name).faults
        (tmp_path / name).write_bytes(text)
        return fault

    assert "the table or its record was changed" in changed("t.csv", "confidence", "certainty")
    assert "something in it was changed" in changed("t.csv.json", '"tile": 16', '"tile": 32')
    assert "the table or its record was changed" in changed("t.geojson", '"confidence"', '"certainty"')
    assert "something in it was changed" in changed("t.geojson", '"tile": 16', '"tile": 32')


def test_a_table_of_something_else_is_found(src: Path, tmp_path: Path, made: LoadedModel) -> None:
    with torch.no_grad():
        next(made.model.parameters()).add_(1)
    save(tmp_path / "other.safetensors", made.model, made.card)
    write_scene(src, pixels(3, SIDE, 2 * SIDE, "uint8") + 1)
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "b.png")
    for name, of, says in (
        ("t.csv", src, "src.tif, or that was changed"),
        ("f.csv", src.parent / "in", "b.png"),
    ):
        by_source, by_weights = verify(
            tmp_path / name, source=of, weights=str(tmp_path / "other.safetensors")
        ).faults
        assert says in by_source
        assert "made by other weights than other" in by_weights


def test_a_table_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n")
    (tmp_path / "t.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (tmp_path / "o.geojson").write_text("[")
    for name, says in (
        ("t.csv", r"t\.csv\.json is not there"),
        ("t.geojson", "not made by geomoe"),
        ("o.geojson", "JSON"),
    ):
        with pytest.raises(GeomoeError, match=says) as caught:
            verify(tmp_path / name)
        assert "\n" not in str(caught.value)
