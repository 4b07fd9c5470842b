"""What is held out of each source, scored by source."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from torch import nn

from geomoe import GeomoeError
from geomoe.data.images import to_unit
from geomoe.data.super_resolution.degradation import get_degradation, interpolated
from geomoe.data.super_resolution.pairs import degrade
from geomoe.data.super_resolution.sources import Source
from geomoe.evaluation.super_resolution.by_source import TILE, read_sources_part, score_sources, tiles_of
from geomoe.evaluation.super_resolution.evaluate import evaluate
from geomoe.layers.super_resolution.known import Known
from geomoe.models import read_card
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.weights import save
from geomoe.noise import image_noise
from tests.cli.run import run
from tests.models.test_models import tiny
from tests.models.test_weights import card_of


class Bicubic(nn.Module):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def forward(self, x, trace=None, known=None):
        self.told.append(known)
        return interpolated(x, 2)


class Fake:
    name, hash, contract = "bicubic", "0", ModelContract.of_images(2, 3, Tiling(1, 64, 0), informed=True)

    def __init__(self):
        self.model = Bicubic()


PHOTOS = Source("photos", "photos", sensor="aerial", gsd=0.5, held_out=0.4)
SCENE = Source("scene", "scene", bands="2", by="area", held_out=0.5, sensor="landsat", gsd=30)
MADE = Source("made", made=("ramps",))


@pytest.fixture
def root(tmp_path):
    """Six photographs, and a scene of two bands and 600 x 80 pixels of which the right half is held out."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    (tmp_path / "scene").mkdir()
    for i in range(6):
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        small.resize((40, 36), Image.Resampling.BICUBIC).save(tmp_path / f"photos/{i}.png")
    values = rng.random((2, 80, 600), dtype=np.float32).cumsum(2)
    profile = {"driver": "GTiff", "width": 600, "height": 80, "count": 2, "dtype": "float32"}
    with rasterio.open(tmp_path / "scene/a.tif", "w", **profile) as file:
        file.write(values)
    return tmp_path


def read(root, *sources, **more):
    return read_sources_part(sources, root, "test", validation=0.05, **more)


def test_bicubic_gains_nothing_on_any_source_under_any_degradation(root):
    rows = score_sources([Fake()], read(root, PHOTOS, SCENE), ["bilinear", "mtf"])
    assert [(row.source, row.sensor, row.degradation) for row in rows] == [
        ("photos", "aerial", "bilinear"), ("photos", "aerial", "mtf"),
        ("scene", "landsat", "bilinear"), ("scene", "landsat", "mtf"),
    ]  # fmt: skip
    assert all(row.gain.mean == row.gain.low == row.gain.high == 0 for row in rows[:2])
    assert all(row.gain.mean == pytest.approx(0, abs=1e-4) for row in rows[2:])  # a mean of three equal bands
    assert list(rows[0].scores) == ["1.png", "3.png", "5.png"]
    assert rows[0].baseline != rows[1].baseline


def test_the_score_of_an_image_is_that_of_evaluate(root):
    [row] = score_sources([Fake()], read(root, PHOTOS), ["bilinear"])
    whole = evaluate(Fake(), root / "photos").by_item
    assert row.scores == {name: whole[name] for name in row.scores}


def test_a_large_area_is_scored_in_tiles_that_cover_it_once(root):
    [row] = score_sources([Fake()], read(root, SCENE), ["bilinear"])
    assert len(row.scores) == 5  # of 300 x 80 pixels at x2, in tiles of about 64
    boxes = tiles_of(300, 80, 2)
    assert sum(box.width * box.height for box in boxes) == 300 * 80
    assert all(TILE <= box.width <= 3 * TILE for box in boxes)
    assert tiles_of(256, 256, 2) == [tiles_of(256, 256, 4)[0]]


def test_informed_models_are_told_what_is_asked_for(root):
    model, parts = Fake(), read(root, PHOTOS, limit=1)
    score_sources([model], parts, ["bilinear", "mtf"])
    expected = [Known("aerial", 0.5, "bilinear", None, 0.0), Known("aerial", 0.5, "sensor", 0.2, 0.0)]
    for told, known in zip(model.model.told, expected, strict=True):
        assert torch.allclose(told, Known.batch([known]))
    blind = Fake()
    score_sources([blind], parts, ["bilinear"], told="nothing")
    assert blind.model.told == [None]


def test_told_as_of_a_scene_are_the_sensor_s_own_mtf_and_the_noise_that_is_found(root):
    satellite = replace(SCENE, sensor="sentinel-2", gsd=10.0)
    model, parts = Fake(), read(root, satellite)
    score_sources([model], parts, ["bilinear"], told="scene")
    ((_, image),) = parts[0].images
    low, _ = degrade(image, 2, get_degradation("bilinear").drawn(0))
    expected = Known("sentinel-2", 10.0, "sensor", 0.2, image_noise(to_unit(low).numpy()))
    assert torch.allclose(model.model.told[0], Known.batch([expected]))


def test_made_sources_are_left_out_and_said(root):
    heard = []
    assert len(read(root, PHOTOS, MADE, say=heard.append)) == 1
    assert heard == ["source made: made surfaces have no part that is held out; it is left out"]
    with pytest.raises(GeomoeError, match="nothing to score"):
        read(root, MADE)


def test_models_of_two_scales_are_refused(root):
    class Other(Fake):
        contract = ModelContract.of_images(4, 3, Tiling(1, 64, 0))

    with pytest.raises(GeomoeError, match=r"scales \[2, 4\]; score those of one scale"):
        score_sources([Fake(), Other()], read(root, PHOTOS), ["bilinear"])


LIST = """
sources:
  - {name: photos, folder: photos, sensor: aerial, gsd: 0.5, held_out: 0.4}
  - {name: scene, folder: scene, bands: "2", by: area, held_out: 0.5}
"""


@pytest.fixture
def given(root):
    for seed, name in enumerate(("one", "other")):
        torch.manual_seed(seed)
        model = tiny("mfg_hmoe", base="bicubic", informed=seed == 1)
        save(root / f"{name}.safetensors", model, card_of(model))
    (root / "list.yaml").write_text(LIST)
    return root


def test_the_command_writes_one_table_of_several_weights(capsys, given):
    asked = ["evaluate", "--sources", given / "list.yaml", "--data", given, "--scale", 2, "--device", "cpu"]
    asked += ["--model", given / "one.safetensors", "--model", given / "other.safetensors"]
    status, said, heard = run(
        capsys, *asked, "--limit", 2, "--json", given / "out.json", "--markdown", given / "out.md"
    )
    assert status == 0, heard
    assert "one dB" in said
    found = json.loads((given / "out.json").read_text())
    assert [(row["source"], row["degradation"], row["weights"]) for row in found["rows"][:4]] == [
        ("photos", "bilinear", "one"), ("photos", "bilinear", "other"),
        ("photos", "mtf", "one"), ("photos", "mtf", "other"),
    ]  # fmt: skip
    first = found["rows"][0]
    assert first["items"] == 2
    assert first["gain"] == pytest.approx(first["scores"]["psnr"] - first["baseline"]["psnr"])
    assert first["gain_95"][0] <= first["gain"] <= first["gain_95"][1]
    table = (given / "out.md").read_text().splitlines()
    assert sum(line.startswith("| ") for line in table) == 5
    assert any(line.startswith("- hardware: ") for line in table)
    asked += ["--degradation", "mtf", "--part", "fit", "--told", "nothing", "--json", "-"]
    _, alone, _ = run(capsys, *asked)
    assert {row["degradation"] for row in json.loads(alone)["rows"]} == {"mtf"}
    assert json.loads(alone)["told to informed models"] == "nothing"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--sources", "LIST", "--metrics", "sam"), "no --metrics, and say what they are"),
        (("--sources", "LIST", "--conserve"), "leave out --metrics, --conserve"),
        (("--sources", "LIST", "--split", "train"), "parts fit, validation and test"),
        (("--told", "scene"), "go with --sources"),
        (("--model", "LIST", "--model", "LIST"), "go with --sources"),
        (("--sources", "LIST", "--json", "nowhere/x.json"), "cannot be written"),
        (("--sources", "LIST", "--markdown", "LIST"), "is a file of weights, the list"),
        (("--sources", "nothing_here"), "no configuration of that name ships"),
        (("--sources", "LIST", "--model", "ONE", "--model", "ONE"), "two models are called 'one'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(capsys, given, more, words):
    names = {"LIST": given / "list.yaml", "ONE": given / "one.safetensors"}
    status, _, heard = run(
        capsys, "evaluate", "--data", given, "--scale", 2, *(names.get(word, word) for word in more)
    )
    assert status == 1
    assert words in heard
    assert heard.count("\n") == 1
    assert (given / "list.yaml").read_text() == LIST


def test_a_card_holds_what_was_found_on_every_source(capsys, given):
    asked = ["evaluate", "--sources", given / "list.yaml", "--data", given, "--scale", 2, "--device", "cpu"]
    asked += ["--model", given / "one.safetensors"]
    target = given / "new.safetensors"
    status, _, heard = run(capsys, *asked, "--card", target, "--json", given / "out.json")
    assert status == 0, heard
    rows = json.loads((given / "out.json").read_text())["rows"]
    held = read_card(target).evaluations
    assert [(one.data, one.sensor, one.gsd, one.degradation) for one in held] == [
        ("photos", "aerial", 0.5, "bilinear"), ("photos", "aerial", 0.5, "mtf"),
        ("scene", None, None, "bilinear"), ("scene", None, None, "mtf"),
    ]  # fmt: skip
    for one, row in zip(held, rows, strict=True):
        assert one.gain == pytest.approx(row["gain"], abs=1e-3)
        assert one.images == row["items"]
    assert held[0].noise is None, "photographs of 20 pixels tell none"
    assert held[2].noise is not None
    for more in (("--limit", 1), ("--part", "fit"), ("--precision", "bfloat16"), ("--model", target)):
        status, _, heard = run(capsys, *asked, *more, "--card", given / "other_one.safetensors")
        assert status == 1
        assert "a card holds what one model makes" in heard
    assert not (given / "other_one.safetensors").exists()
