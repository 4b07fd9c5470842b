"""``geomoe predict``: bands, images and what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner

from geomoe.cli.main import cli
from geomoe.errors import GeomoeError
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.weights import LoadedModel, load, save
from geomoe.pipeline import Request, describe_scene, plan_scene, predict, predict_table, upscale
from geomoe.raster.stac.item import read_item
from tests.models.test_label_models import tiny as tiny_label
from tests.models.test_map_models import tiny
from tests.models.test_weights import card_of
from tests.pipeline.fakes import nearest
from tests.pipeline.test_predict import BANDS, NAMES, weights
from tests.scenes import left_over, pixels, write_scene


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    return weights(tmp_path / "land.safetensors")


def _fewer(src: Path, dst: Path, model: LoadedModel) -> None:
    predict(write_scene(src, pixels(4, 8, 8, "uint16")), dst, model=model)


def _more(src: Path, dst: Path, model: LoadedModel) -> None:
    predict(write_scene(src, pixels(6, 8, 8, "uint16")), dst, model=model)


def _some(src: Path, dst: Path, model: LoadedModel) -> None:
    predict(write_scene(src, pixels(6, 8, 8, "uint16")), dst, model=model, bands="1,2")


def _empty_band(src: Path, dst: Path, model: LoadedModel) -> None:
    data = pixels(BANDS, 8, 8, "uint16")
    data[3] = 0
    predict(write_scene(src, data, nodata=0, names=NAMES), dst, model=model)


def _asks(**options: object) -> Callable[[Path, Path, LoadedModel], None]:
    def ask(src: Path, dst: Path, model: LoadedModel) -> None:
        places = {name: dst.with_name("m.tif") for name in options if name in ("consistency", "reliability")}
        predict(write_scene(src, pixels(BANDS, 8, 8, "uint16")), dst, model=model, **{**options, **places})

    return ask


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (_fewer, "has 4 bands of data, 5 are wanted"),
        (_more, "has 6 bands of data, the model takes 5; say which by --bands"),
        (_some, "2 bands of .* were named, the model takes 5"),
        (_empty_band, "has a band without a valid pixel, and the model needs them all"),
        (_asks(fallback=True), "gives a map of 3 classes, no image; leave out --fallback"),
        (_asks(conserve=True), "gives a map of 3 classes, no image; leave out --conserve"),
        (_asks(consistency=True), "gives no image .* leave out --consistency"),
        (_asks(reliability=True), "has no routing reference"),
        (_asks(scale=2), "gives a map of 3 classes; expected weights of a model that gives an image"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_written(
    src: Path, dst: Path, model: LoadedModel, ask: Callable[..., None], says: str
) -> None:
    before = {*left_over(dst.parent)}
    with pytest.raises(GeomoeError, match=says) as caught:
        ask(src, dst, model)
    assert "\n" not in str(caught.value)
    assert {*left_over(dst.parent)} - before == {"src.tif"}


def test_more_bands_will_do_where_their_names_say_which_are_meant(
    src: Path, dst: Path, tmp_path: Path
) -> None:
    model = tiny("unet", bands=3)
    card = replace(card_of(model), model="unet", task="segmentation")
    save(tmp_path / "rgb.safetensors", model, card)
    data = pixels(4, 12, 12, "uint8")
    write_scene(src, data, names=["nir", "blue", "green", "red"])
    loaded = load(str(tmp_path / "rgb.safetensors"))
    assert predict(src, dst, model=loaded, device="cpu").plan.bands == (4, 3, 2)
    assert "upscale" not in (facts := describe_scene(src, model=loaded))
    assert facts["predict"].startswith("rgb, classes of pixels: 12 x 12 pixels, 1 tile of")


def test_an_order_of_bands_that_nothing_settles_is_said(src: Path, dst: Path, tmp_path: Path) -> None:
    model, data = tiny("unet", bands=3), pixels(3, 12, 12, "uint8")
    save(tmp_path / "three.safetensors", model, replace(card_of(model), model="unet"))
    loaded = load(str(tmp_path / "three.safetensors"))
    said = "bands are taken to be those that the model learned from, in this order: "
    for names, order in (
        (["red", "green", "blue"], None),
        (["blue", "green", "nir"], "blue, green, nir"),
        (["", "swir16", "b3"], "band 1, swir16, b3"),
        ([], "band 1, band 2, band 3"),
    ):
        write_scene(src, data, names=names)
        notes = predict(src, dst, model=loaded, device="cpu", overwrite=True).plan.notes
        assert [note for note in notes if "bands" in note] == ([said + order] if order else [])


def test_a_scene_is_described_as_the_model_is_shown_it(src: Path, dst: Path, model: LoadedModel) -> None:
    write_scene(src, pixels(BANDS, 12, 12, "uint16"), names=NAMES)
    facts, alone = describe_scene(src, model=model), describe_scene(src)
    assert "percentile" in alone["radiometry"]
    assert facts["radiometry"] == "values as they are"
    assert facts["order"] in predict(src, dst, model=model, device="cpu").plan.notes
    assert "red" not in facts["order"]


def test_an_image_on_the_grid_of_the_scene_keeps_what_the_scene_says(src: Path, dst: Path) -> None:
    data = pixels(4, 20, 24, "uint16")
    write_scene(src, data, names=NAMES[:4], nodata=7)
    done = predict(src, dst, model=nearest(1), device="cpu")
    with rasterio.open(src) as scene, rasterio.open(dst) as out:
        assert np.array_equal(out.read(), data)
        assert (out.transform, out.descriptions, out.nodata) == (scene.transform, scene.descriptions, 7)
    said = read_item(done.items[0])["properties"]
    assert said["title"] == "src.tif, image by fake"
    assert "super-resol" not in json.dumps(said)
    assert read_item(done.model_item)["properties"]["mlm:tasks"] == ["regression"]
    other = ModelContract({"image": Input(3)}, {"image": Output("image", 1)}, Tiling(4, 16, 4))
    with pytest.raises(GeomoeError, match="fake gives 1 bands of 3"):
        predict(src, dst, model=replace(nearest(1), contract=other), overwrite=True)


def test_an_image_has_no_confidence_and_predict_is_upscale_by_another_name(
    src: Path, dst: Path, settings: Request
) -> None:
    write_scene(src, pixels(3, 20, 24, "uint16"))
    loaded = load(str(settings.model))
    with pytest.raises(GeomoeError, match="leave out --confidence"):
        predict(src, dst, model=loaded, confidence=dst.with_name("c.tif"))
    predict(src, dst, model=loaded, tile=16, device="cpu")
    upscale(src, dst.with_name("u.tif"), model=loaded, scale=2, tile=16, device="cpu")
    assert rasterio.open(dst).read().tobytes() == rasterio.open(dst.with_name("u.tif")).read().tobytes()


def test_memory_is_planned_by_what_the_card_says(src: Path, dst: Path, model: LoadedModel) -> None:
    write_scene(src, pixels(BANDS, 40, 60, "uint16"), names=NAMES)
    assert model.card.activations > 0
    more = replace(model, card=replace(model.card, activations=model.card.activations + 10_000))
    least, most = (plan_scene(src, dst, model=each, scale=None).memory_bytes for each in (model, more))
    assert most - least == pytest.approx(40 * 60 * 10_000 * 1.3, rel=0.01)  # the tile is all of the scene


def test_bands_are_found_by_the_names_that_the_card_has(src: Path, dst: Path, model: LoadedModel) -> None:
    """Whatever their order in the scene; one that has other names is refused."""
    data = pixels(BANDS, 40, 60, "uint16")
    named = replace(model, card=replace(model.card, bands=NAMES))
    predict(write_scene(src, data, names=NAMES), dst, model=named)
    item = read_item(dst.with_suffix(".stac.json"))
    assert item["properties"]["geomoe:configuration"]["contract"]["names"] == NAMES
    turned = write_scene(src.with_name("turned.tif"), data[::-1], names=NAMES[::-1])
    report = predict(turned, dst.with_name("turned_out.tif"), model=named)
    assert read_item(report.model_item)["properties"]["mlm:input"][0]["bands"] == NAMES
    with rasterio.open(dst) as one, rasterio.open(dst.with_name("turned_out.tif")) as other:
        assert np.array_equal(one.read(), other.read())
    other_names = write_scene(src.with_name("other.tif"), data, names=[*NAMES[:-1], "thermal"])
    with pytest.raises(GeomoeError, match=f"can be {NAMES[-1]}; it has"):
        predict(other_names, dst.with_name("o.tif"), model=named)


@pytest.mark.parametrize(
    ("dtype", "learned", "said"),
    [
        ("uint16", ["uint8"], "uint16 is stretched by the percentiles of each image, and the weights rgb"),
        (
            "uint8",
            ["float32", "uint16"],
            "uint8 is divided by 255, and the weights rgb learned from float32 and uint16",
        ),
        ("uint16", ["uint16", "uint8"], None),
        ("uint8", ["uint8"], None),
        ("uint16", ["float32"], None),
        ("uint16", None, None),
    ],
)
def test_values_that_are_brought_in_another_way_than_those_of_training_are_said(
    src: Path, dst: Path, tmp_path: Path, dtype: str, learned: list[str] | None, said: str | None
) -> None:
    model = tiny("unet", bands=3)
    card = replace(card_of(model), model="unet", task="segmentation", data={"dtypes": learned})
    save(tmp_path / "rgb.safetensors", model, card)
    write_scene(src, pixels(3, 12, 12, dtype), names=["red", "green", "blue"])
    loaded = load(str(tmp_path / "rgb.safetensors"))
    planned = plan_scene(src, dst, model=loaded, scale=None)
    done = predict(src, dst, model=loaded, device="cpu").plan
    assert [note[: len(said or "")] for note in done.notes] == ([said] if said else [])
    assert planned.notes == done.notes
    assert describe_scene(src, model=loaded).get("remarks", "") == "; ".join(done.notes)
    labelled, to = labels(tmp_path, card.data), dst.with_suffix(".csv")
    table = predict_table(src, to, model=labelled, device="cpu")
    assert [note.replace("labels", "rgb") for note in table.notes] == list(done.notes)
    (tmp_path / "folder").mkdir()
    src.rename(tmp_path / "folder" / "a.tif")
    table = predict_table(tmp_path / "folder", to, model=labelled, device="cpu", overwrite=True)
    assert [note.replace("labels", "rgb") for note in table.notes] == list(done.notes)


def test_values_as_they_are_are_never_stretched(src: Path, dst: Path, tmp_path: Path) -> None:
    model = tiny("unet", bands=3)
    card = card_of(model)
    card = replace(card, model="unet", task="segmentation", radiometry="values", data={"dtypes": ["uint8"]})
    save(tmp_path / "rgb.safetensors", model, card)
    write_scene(src, pixels(3, 12, 12, "uint16"), names=["red", "green", "blue"])
    loaded = load(str(tmp_path / "rgb.safetensors"))
    assert predict(src, dst, model=loaded, device="cpu").plan.notes == ()


def test_a_command_says_the_notes_of_a_table(src: Path, tmp_path: Path) -> None:
    weights = labels(tmp_path, {"dtypes": ["uint8"]}).path
    write_scene(src, pixels(3, 12, 12, "uint16"), names=["red", "green", "blue"])
    ran = CliRunner().invoke(cli, ["predict", str(src), str(tmp_path / "t.csv"), "--model", str(weights)])
    assert ran.exit_code == 0, ran.output
    assert "uint16 is stretched by the percentiles of each image, and the weights" in ran.output


def labels(folder: Path, data: dict[str, object]) -> LoadedModel:
    model = tiny_label("convnext_t")
    card = replace(card_of(model), model="convnext_t", task="classification", recipe={"size": 8}, data=data)
    save(folder / "labels.safetensors", model, card)
    return load(str(folder / "labels.safetensors"))
