"""``geomoe evaluate`` and cards, of models that make images larger."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomoe.models import load, read_card
from geomoe.models.measured import Measured
from geomoe.models.weights import save
from tests.cli.run import run


def test_a_card_begins_with_what_was_measured(capsys, weights, tmp_path):
    loaded = load(str(weights))
    found = Measured(
        "fields", None, None, "bicubic", None, "hsenet", 3, {"psnr": 30.5}, {"psnr": 30.0}, "2026-11-26",
        ranks="psnr",
    )  # fmt: skip
    card = replace(loaded.card, measured=[asdict(found)], scores={"psnr": 33.0, "scored": "validation"})
    save(tmp_path / "w.safetensors", loaded.model, card)
    said = run(capsys, "models", tmp_path / "w.safetensors")[1].splitlines()
    keys = [line.split()[0].rstrip(",") for line in said if line.startswith("  ") and line[2] != " "]
    assert keys[:3] == ["model", "task", "measured"]
    assert len(keys) == len(set(keys))
    assert "  scores, validation" in said


def test_evaluate_prints_ours_beside_bicubic(capsys, weights, tmp_path):
    (tmp_path / "images" / "field").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((40, 40)).save(tmp_path / "images" / "field" / "x.png")
    out = tmp_path / "scores.json"
    status, said, heard = run(
        capsys, "evaluate", "--model", weights, "--scale", 2, "--data", tmp_path / "images", "--json", out
    )
    assert status == 0, heard
    assert "field" in said
    assert "mfg_hmoe" in said
    found = json.loads(out.read_text())
    assert found["overall"]["gain"] == pytest.approx(
        found["overall"]["scores"]["psnr"] - found["overall"]["baseline"]["psnr"]
    )
    assert "SAM" not in said
    more = ("--metrics", "psnr, sam,scc", "--json", out)
    status, said, heard = run(
        capsys, "evaluate", "--model", weights, "--scale", 2, "--data", tmp_path / "images", *more
    )
    assert status == 0, heard
    again = json.loads(out.read_text())["overall"]
    assert f"{again['scores']['sam']:.3f}" in said
    assert list(again["scores"]) == ["psnr", "ssim", "sam", "scc"]
    assert all(again["scores"][name] == value for name, value in found["overall"]["scores"].items())


def test_what_bfloat16_costs_is_told_and_put_on_the_card(capsys, weights, tmp_path):
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((40, 40)).save(tmp_path / "images" / "x.png")
    weights = Path(shutil.copy(weights, tmp_path / "w.safetensors"))
    given = ("evaluate", "--model", weights, "--scale", 2, "--data", tmp_path / "images")
    before = read_card(weights)
    status, said, heard = run(capsys, *given, "--precision", "bfloat16", "--card", weights)
    assert (status, said) == (1, "")
    assert "--overwrite" in heard
    status, said, heard = run(capsys, *given, "--precision", "bfloat16", "--card", weights, "--overwrite")
    assert status == 0, heard
    card = read_card(weights)
    assert f"bfloat16 costs {card.bfloat16['loss']:.4f} dB against float32" in said
    assert card.bfloat16["scored"] == "the one image of a folder"
    assert card.bfloat16["data"] == "images"
    assert replace(card, bfloat16={}) == before  # the hash of the tensors included
