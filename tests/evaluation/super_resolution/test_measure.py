"""What an evaluation puts on a card, and how commands show it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomoe.cli.main import main
from geomoe.data.super_resolution.degradation import get_degradation
from geomoe.evaluation.export import export
from geomoe.evaluation.measure import noted
from geomoe.evaluation.super_resolution.evaluate import evaluate
from geomoe.models import load, read_card
from geomoe.models.measured import Measured
from geomoe.models.weights import save
from tests.models.sizes import tiny
from tests.models.super_resolution.test_measured import MEASURED
from tests.models.test_weights import card_of


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two smooth ones, 64 x 64."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        path = tmp_path / "images" / f"{seed}.png"
        path.parent.mkdir(exist_ok=True)
        small = Image.fromarray(rng.integers(40, 216, (4, 4, 3), dtype=np.uint8))
        small.resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "images"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = tiny("edsr")
    card = replace(card_of(model), model="edsr", measured=[MEASURED])
    save(tmp_path / "w.safetensors", model, card)
    return tmp_path / "w.safetensors"


def run(*args: object) -> int:
    try:
        main([str(arg) for arg in args])
    except SystemExit as stop:
        return int(str(stop.code))
    return 0


def test_evaluate_puts_what_it_finds_on_the_card(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("evaluate", "--model", weights, "--scale", 2, "--data", images, "--degradation", "mtf")
    target = tmp_path / "new.safetensors"
    assert run(*asked, "--card", target, "--sensor", "naip", "--gsd", 0.6, "--json", tmp_path / "e.json") == 0
    before, card = read_card(weights), read_card(target)
    assert (card.hash, card.scores) == (before.hash, before.scores)
    assert card.evaluations[0] == Measured.from_card(MEASURED)
    found, scored = card.evaluations[1], json.loads((tmp_path / "e.json").read_text())
    assert found.gain == pytest.approx(scored["overall"]["gain"], abs=1e-4)
    assert found.baseline["psnr"] == pytest.approx(scored["overall"]["baseline"]["psnr"], abs=1e-4)
    assert (found.data, found.sensor, found.gsd, found.images) == ("images", "naip", 0.6, 2)
    assert (found.degradation, found.protocol) == ("mtf", "mfg_hmoe")
    assert list(found.noise or ()) == scored["noise"]
    assert "its card says" in capsys.readouterr().out
    # Again, on the same file: in place of the first time.
    again = ("evaluate", "--model", target, *asked[3:], "--card", target)
    assert run(*again) == 1, "it exists"
    assert run(*again, "--overwrite", "--gsd", 1.2) == 0
    assert [one.gsd for one in read_card(target).evaluations] == [10, 1.2]
    load(str(target))


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--sensor", "naip"), 2, "--sensor is of --card"),
        (("--card", "x.safetensors", "--gsd", "3", "--precision", "bfloat16"), 2, "--gsd is of --card"),
        (("--card", "x.safetensors", "--conserve"), 1, "leave out --conserve or --card"),
        (("--card", "x.tif"), 1, "must end in .safetensors"),
        (("--card", "none/x.safetensors"), 1, "does not exist"),
        (("--card", "x.safetensors", "--split", "validation"), 1, "split validation is for training"),
        (("--card", "x.safetensors", "--gsd", "0"), 2, "--gsd"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_told_before_an_image_is_scored(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], status: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run("evaluate", "--model", weights, "--scale", 2, "--data", images, *options) == status
    err = capsys.readouterr().err
    assert said in err
    assert "images" not in err.replace("images,", "")
    assert not (tmp_path / "x.safetensors").exists()


def test_the_noise_of_inputs_is_that_of_their_degradation(images: Path) -> None:
    model = load_tiny()
    clean, noisy = (evaluate(model, images, degradation=name).noise for name in ("mtf", "mtf_noise"))
    assert clean is not None
    assert noisy is not None
    assert clean[1] < 0.004
    read = get_degradation("mtf_noise").stages[0].read  # type: ignore[attr-defined]
    assert noisy[0] == pytest.approx(np.hypot(read, 0.007), rel=0.25), "read noise, and shot noise of 0.5"


def load_tiny() -> object:
    from types import SimpleNamespace

    model = tiny("edsr").eval()
    return SimpleNamespace(name="tiny", hash="0", model=model, contract=model.contract)


def test_export_notes_what_it_scored_and_drops_what_other_tensors_scored(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    whole = export(weights, tmp_path / "whole.safetensors", images)
    assert [one.data for one in whole.evaluations] == [MEASURED["data"], "images"]
    assert whole.evaluations[1].gain == whole.scores["gain"]
    half = export(weights, tmp_path / "half.safetensors", images, half=True)
    assert [one.data for one in half.evaluations] == ["images"]
    again = noted(half, half.evaluations)
    assert again == half


def test_models_says_of_weights_what_they_were_measured_on(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny("edsr")
    save(tmp_path / "old.safetensors", model, replace(card_of(model), model="edsr"))
    there = {"new_x2": weights, "old_x2": tmp_path / "old.safetensors"}
    monkeypatch.setattr("geomoe.cli.models.available_weights", lambda: there)
    monkeypatch.setattr("geomoe.cli.models.list_models", lambda *_: ["edsr"])  # counting all takes seconds
    assert run("models") == 0
    new, old = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[-2:])
    assert new == "new_x2 2 EuroSAT, held out (sentinel-2, 10 m), mtf +2.100 dB"
    assert old == "old_x2 2 its card does not say"
    assert run("models", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["new_x2"] == {"model": "edsr", "scale": 2, "measured": [MEASURED]}
    assert told["old_x2"]["measured"] == []
    assert run("models", weights) == 0
    said = capsys.readouterr().out
    assert "+2.100 dB over the baseline's 30.200 dB: EuroSAT, held out (sentinel-2, 10 m), mtf, noise" in said
    assert run("models", tmp_path / "old.safetensors") == 0
    assert "its card does not say" in capsys.readouterr().out


@pytest.mark.slow
def test_scoring_and_noting_images_want_neither_lightning_nor_torchmetrics() -> None:
    code = (
        "import sys; from geomoe.evaluation.super_resolution import by_source, evaluate; "
        "from geomoe.evaluation import export, measure; "
        "print({'lightning', 'torchmetrics', 'jsonargparse'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
