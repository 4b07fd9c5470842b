"""Which weights a scene gets, why, and what is said where they were measured on nothing like it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from geomoe import GeomoeError, create_model
from geomoe.layers.super_resolution.known import SENSORS
from geomoe.models import load
from geomoe.models.measured import Measured
from geomoe.models.weights import Card, save
from geomoe.pipeline import choice, describe_scene, forecast_scene, plan_scene, upscale
from geomoe.pipeline.batch.scene import do_scene, pinned
from geomoe.pipeline.batch.scenes import predict_many
from geomoe.pipeline.choice import choose, for_model, outside
from geomoe.pipeline.job import is_made
from geomoe.pipeline.provenance import model_item
from geomoe.pipeline.request import Request
from geomoe.pipeline.verification import verify
from geomoe.raster.read.known import KnownScene as Known
from tests.models.sizes import tiny
from tests.models.test_weights import card_of
from tests.scenes import write_scene

NOWHERE = Measured(
    "x",
    None,
    None,
    "bilinear",
    None,
    "mfg_hmoe",
    9,
    {"psnr": 31.0},
    {"psnr": 30.0},
    "2026-11-26",
    ranks="psnr",
)


def over(gain: float) -> dict[str, float]:
    """Scores that are so much better than bicubic's."""
    return {"psnr": NOWHERE.baseline["psnr"] + gain}


def measured(sensor: str | None, gsd: float | None, gain: float = 1.0, **more: object) -> Measured:
    return replace(NOWHERE, sensor=sensor, gsd=gsd, scores=over(gain), data=str(sensor), **more)  # type: ignore[arg-type]


def carded(*found: Measured, scale: int = 2) -> Card:
    return Card(
        "edsr", {"scale": scale}, "unit", {}, "bilinear", {}, "mfg_hmoe", {}, "", "2026-11-26", "CC0-1.0",
        measured=[one.for_card() for one in found],
    )  # fmt: skip


CARDS = {
    "aerial": carded(measured("aerial", 0.3, 4.0), measured("sentinel-2", 10, 1.5)),
    "satellite": carded(measured("sentinel-2", 10, 2.5), measured("landsat", 30, 2.0)),
    "silent": carded(),
}


@pytest.mark.parametrize(
    ("known", "weights", "why"),
    [
        (Known("sentinel-2", 10.0), "satellite", "measured on sentinel-2"),
        (Known("sentinel-2"), "satellite", "measured on sentinel-2"),
        (Known("landsat-9", 30.0), "satellite", "measured on landsat-9"),
        (Known("naip", 0.6), "aerial", "measured on naip"),
        (Known("dove", 0.4), "aerial", "none were measured on dove, and of 0.4 m theirs are nearest (0.3 m)"),
        (Known("x", 99.0), "satellite", "none were measured on x, and of 99 m theirs are nearest (30 m)"),
        (Known(None, 40.0), "satellite", "no sensor is recognised, and of 40 m theirs are nearest (30 m)"),
        (Known(), "silent", "the default, as no sensor is recognised"),
        (Known("dove"), "silent", "the default, as none were measured on dove"),
    ],
)  # fmt: skip
def test_the_sensor_decides_then_the_pixels_then_the_default(known: Known, weights: str, why: str) -> None:
    found = choose(known, CARDS, "silent")
    assert (found.weights, found.why) == (weights, why)


def test_of_one_sensor_the_nearest_pixels_decide_then_the_larger_gain_on_the_same_images() -> None:
    pan, rgb = measured("landsat", 15, 9.0), measured("landsat", 30, 2.0)
    cards = {"pan": carded(replace(pan, data="pan")), "rgb": carded(rgb)}
    assert choose(Known("landsat-8", 15.0), cards, "rgb").weights == "pan"
    assert choose(Known("landsat-8", 100.0), cards, "pan").weights == "rgb"
    # An easy set that only one of them was measured on does not count against the other.
    easy = replace(rgb, data="easy", scores=over(9.0))
    cards = {"a": carded(rgb, easy), "b": carded(replace(rgb, scores=over(2.1)))}
    assert choose(Known("landsat-8", 30.0), cards, "a").weights == "b"
    assert choose(Known("landsat-8", 30.0), {**cards, "b": cards["a"]}, "b").weights == "b", "all alike"


def test_a_scene_like_what_was_measured_is_no_cause_for_alarm() -> None:
    quiet = carded(measured("sentinel-2", 10, noise=(0.001, 0.02)), measured("aerial", 0.3, noise=(0, 0.03)))
    for known in (
        Known(),
        Known("sentinel-2", 10.0, 0.2, 0.004),
        Known("sentinel-2", 20.0, None, 0.03),  # as the inputs that were made of images of 10 m
        Known(None, 0.25, None, 0.045),
        Known("naip", 0.6),
        Known("sentinel-2"),
    ):
        assert outside(known, quiet, "w") is None
    clean = carded(measured("sentinel-2", 10, noise=(0.0, 0.001)))
    assert outside(Known("sentinel-2", 10.0, 0.2, 0.009), clean, "w") is None, "a good sensor's own"
    for known in (Known("modis", 250.0, None, 0.5), Known()):
        assert outside(known, carded(), "w") is None, "of a card that does not say"
    assert outside(Known("modis", 250.0, None, 0.5), carded(measured(None, None)), "w") is None


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (Known("landsat-8", 10.0), "sensor landsat-8 (measured: aerial, sentinel-2)"),
        (Known("sentinel-2", 60.0), "pixels of 60 m (measured: 10 to 20 m)"),
        (Known(None, 2.0), "pixels of 2 m (measured: 0.3 to 0.6 m, 10 to 20 m)"),
        (
            Known("sentinel-2", 10.0, 0.2, 0.031),
            "noise of about 0.031 of the range (measured: about 0.02)",
        ),
        (
            Known("modis", 250.0, None, 0.05),
            "sensor modis (measured: aerial, sentinel-2), "
            "pixels of 250 m (measured: 0.3 to 0.6 m, 10 to 20 m), "
            "noise of about 0.05 of the range (measured: about 0.03)",
        ),
    ],
)
def test_a_scene_unlike_all_that_was_measured_is_told_in_one_sentence(known: Known, said: str) -> None:
    card = carded(measured("sentinel-2", 10, noise=(0.001, 0.02)), measured("aerial", 0.3, noise=(0, 0.03)))
    assert outside(known, card, "w") == (
        f"unlike what w was measured on: {said}; look at the result before you rely on it"
    )


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Tiny weights in place of those that ship: the default, and one for each of two sensors."""
    (tmp_path / "weights").mkdir()
    there = {}
    for seed, (name, found) in enumerate({
        "mfg_hmoe_light_x2": [],
        "aerial_x2": [measured("aerial", 0.3, noise=(0.0, 0.02))],
        "satellite_x2": [measured("sentinel-2", 10, noise=(0.0, 0.2))],
    }.items()):  # fmt: skip
        torch.manual_seed(seed)
        model = create_model("edsr", scale=2, width=4, blocks=1)
        there[name] = tmp_path / "weights" / f"{name}.safetensors"
        held = [one.for_card() for one in found]
        save(there[name], model, replace(card_of(model), model="edsr", measured=held))
    monkeypatch.setattr(choice, "available_weights", lambda: there)
    return there


def scene(folder: Path, name: str, noise: float = 0.0, **options: object) -> Path:
    rng = np.random.default_rng(0)
    smooth = np.linspace(20, 200, 64)[None, None] + np.zeros((3, 64, 64))
    data = np.rint(smooth + rng.normal(0, noise, smooth.shape)).clip(1, 254).astype(np.uint8)
    return write_scene(folder / name, data, names=["red", "green", "blue"], **options)  # type: ignore[arg-type]


def test_upscale_takes_what_fits_and_says_so_everywhere(tmp_path: Path, shipped: dict[str, Path]) -> None:
    src, dst = scene(tmp_path, "sentinel2.tif", 2.0), tmp_path / "out.tif"
    said = "weights satellite_x2: measured on sentinel-2"
    options = {"scale": 2, "tile": 32, "device": "cpu"}
    assert plan_scene(src, dst, **options).notes == (said,)
    assert forecast_scene(src, dst, **options).plan.notes == (said,)
    assert describe_scene(src, model="auto", scale=2)["remarks"] == said
    told: list[str] = []
    report = upscale(src, dst, told=lambda plan: told.extend(plan.notes), **options)
    assert (report.model, told) == ("satellite_x2", [said])
    item = json.loads(dst.with_suffix(".stac.json").read_text())["properties"]
    assert item["geomoe:remarks"] == [said]
    assert item["geomoe:known"].keys() == {"sensor", "gsd", "mtf", "noise"}
    assert item["geomoe:configuration"]["model"] == "satellite_x2"
    assert verify(dst, source=src, weights=str(shipped["satellite_x2"])).faults == ()


def test_a_model_that_is_named_is_taken(tmp_path: Path, shipped: dict[str, Path]) -> None:
    src = scene(tmp_path, "sentinel2.tif", 2.0)
    report = upscale(
        src, tmp_path / "out.tif", model=str(shipped["mfg_hmoe_light_x2"]), scale=2, tile=32, device="cpu"
    )
    assert (report.model, report.plan.notes) == ("mfg_hmoe_light_x2", ())
    assert "geomoe:remarks" not in (tmp_path / "out.stac.json").read_text()


def test_an_unknown_scene_gets_the_default(tmp_path: Path, shipped: dict[str, Path]) -> None:
    src = scene(tmp_path, "scene.tif", 2.0, crs=None, transform=None)
    notes = plan_scene(src, tmp_path / "o.tif", scale=2, device="cpu").notes
    assert notes[-1] == "weights mfg_hmoe_light_x2: the default, as no sensor is recognised"


def test_a_noisy_scene_is_told_of_before_its_first_tile_and_in_its_item(
    tmp_path: Path, shipped: dict[str, Path]
) -> None:
    src, dst = scene(tmp_path, "naip.tif", 10.0, transform=None, crs=None), tmp_path / "out.tif"
    told: list[str] = []
    upscale(src, dst, told=lambda plan: told.extend(plan.notes), scale=2, tile=32, device="cpu")
    assert told[-2] == "weights aerial_x2: measured on naip"
    assert told[-1].startswith("unlike what aerial_x2 was measured on: noise of about 0.0")
    assert "of the range (measured: about 0.02); look at the result" in told[-1]
    item = json.loads(dst.with_suffix(".stac.json").read_text())["properties"]
    assert item["geomoe:remarks"] == told[-2:]
    assert item["geomoe:known"]["noise"] == pytest.approx(10 / 255, rel=0.15)


def test_each_scene_of_a_manifest_gets_its_own(tmp_path: Path, shipped: dict[str, Path]) -> None:
    (tmp_path / "out").mkdir()
    outcomes = {}
    for name in ("sentinel2", "naip", "scene"):
        src = scene(tmp_path, f"{name}.tif", 2.0)
        task = Request(str(src), str(tmp_path / "out" / f"{name}.tif"), scale=2, tile=32, device="cpu")
        (asked,) = pinned([task])
        outcomes[name] = do_scene(*asked)
        assert do_scene(*asked).status == "there"
    assert [outcome.status for outcome in outcomes.values()] == ["done"] * 3
    words = [outcome.message.split(":")[0] for outcome in outcomes.values()]
    assert words == ["weights satellite_x2", "weights aerial_x2", "weights satellite_x2"]
    assert "unlike what aerial_x2" in outcomes["naip"].message, "its pixels are of 10 m"


def test_a_machine_with_other_weights_does_nothing(tmp_path: Path, shipped: dict[str, Path]) -> None:
    (asked,) = pinned([Request(str(scene(tmp_path, "naip.tif")), str(tmp_path / "o.tif"), scale=2)])
    del shipped["aerial_x2"]
    outcome = do_scene(*asked)
    assert outcome.status == "failed"
    assert "auto has other weights here" in outcome.message


def test_maps_that_some_weights_cannot_make_are_refused_before_the_night(
    tmp_path: Path, shipped: dict[str, Path]
) -> None:
    with pytest.raises(GeomoeError, match="routes nothing"):
        predict_many([Request.of("a.tif", "b.tif", reliability="r.tif", scale=2)])


def test_a_scale_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeomoeError, match="no weights of mfg_hmoe_light for scale 8"):
        upscale(scene(tmp_path, "s.tif"), tmp_path / "o.tif", scale=8)


def test_the_item_of_a_model_says_what_was_measured(shipped: dict[str, Path]) -> None:
    held = measured("aerial", 0.3, noise=(0.0, 0.02)).for_card()
    assert model_item(load(str(shipped["aerial_x2"])))["properties"]["geomoe:measured"] == [held]
    assert "geomoe:measured" not in model_item(load(str(shipped["mfg_hmoe_light_x2"])))["properties"]
    assert asdict(load(str(shipped["aerial_x2"])).card)["measured"] == [held]


def test_routers_are_told_what_is_known_of_the_scene(tmp_path: Path) -> None:
    """And what they were told is part of the job, as its pixels depend on it."""
    torch.manual_seed(0)
    model = tiny("mfg_hmoe", informed=True)
    assert model.informed is not None
    torch.nn.init.normal_(model.informed.facts.weight)
    save(tmp_path / "w.safetensors", model, card_of(model))
    options = {"model": str(tmp_path / "w.safetensors"), "scale": 2, "tile": 32, "device": "cpu"}
    told = {}
    for name in ("sentinel2", "scene"):
        src, dst = scene(tmp_path, f"{name}.tif", 2.0), tmp_path / f"{name}_x2.tif"
        upscale(src, dst, **options)
        item = json.loads(dst.with_suffix(".stac.json").read_text())["properties"]
        told[name] = item["geomoe:configuration"]["known"]
        assert verify(dst, source=src).faults == ()
    noise = told["scene"]["noise"]
    assert told["scene"] == {"sensor": None, "gsd": 10.0, "kernel": None, "mtf": None, "noise": noise}
    assert told["sentinel2"] == {
        "sensor": "sentinel-2", "gsd": 10.0, "kernel": "sensor", "mtf": 0.2, "noise": noise,
    }  # fmt: skip
    with rasterio.open(tmp_path / "scene_x2.tif") as one, rasterio.open(tmp_path / "sentinel2_x2.tif") as two:
        assert (one.read() != two.read()).any()
    named = Request(tmp_path / "sentinel2.tif", tmp_path / "sentinel2_x2.tif", **options)
    assert is_made(named)
    nameless = named.src.rename(tmp_path / "now_nobody_knows.tif")  # the same file, of which less is known
    assert not is_made(replace(named, src=nameless))


@pytest.mark.parametrize(
    ("known", "sensor", "kernel"),
    [(Known("landsat-8", 30.0), "landsat", None), (Known("naip"), "aerial", None), (Known(), None, None)],
)
def test_a_model_is_told_in_the_terms_of_its_training(
    known: Known, sensor: str | None, kernel: str | None
) -> None:
    told = for_model(known)
    assert (told.sensor, told.kernel, told.gsd) == (sensor, kernel, known.gsd)
    assert sensor is None or sensor in SENSORS
