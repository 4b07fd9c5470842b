"""The scripts of benchmarks/ that show what weights invent, on tiny weights."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from geomoe import create_model
from geomoe.models.weights import save
from tests.models.test_weights import card_of
from tests.scenes import pixels, write_scene

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "super_resolution"


def run(script, *args):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model = create_model("edsr", scale=2, width=4, blocks=1)
    save(tmp_path / "tiny.safetensors", model, replace(card_of(model), model="edsr"))
    return tmp_path / "tiny.safetensors"


@pytest.mark.slow
def test_the_table_has_a_column_for_weights_and_one_for_bicubic(tmp_path, weights):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    write_scene(scenes / "one.tif", pixels(1, 30, 40, "uint16"))
    done = run(
        "invention.py", "--quick", "--model", weights, "--data", scenes, "--json", tmp_path / "found.json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["results"]
    assert list(found) == ["bicubic x2", "tiny"]
    assert found["tiny"]["error"]["hills"] > found["bicubic x2"]["error"]["hills"]
    for result in found.values():
        assert 0 <= result["overshoot"]["one.tif"] <= 1
    row = f"{found['bicubic x2']['error']['hills']:.2f} | {found['tiny']['error']['hills']:.2f}"
    assert f"| hills: worst error, levels | 1.5 | {row} |" in done.stdout


@pytest.mark.slow
def test_a_sheet_shows_a_crop_by_input_bicubic_and_weights(tmp_path, weights):
    (tmp_path / "scenes").mkdir()
    write_scene(tmp_path / "scenes" / "naip_rgbn_5m.tif", pixels(4, 500, 520, "uint8"))
    options = "--data", tmp_path, "--scale", 2, "--model", weights
    done = run("sheet.py", tmp_path / "sheet.png", *options, "--only", "lake")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        panels = [sheet.crop((i * 260, 16, i * 260 + 256, 272)) for i in range(3)]
    assert len({panel.tobytes() for panel in panels}) == 3
    assert all(len(panel.getcolors(65536) or ()) > 50 for panel in panels)
    done = run("sheet.py", tmp_path / "none.png", *options, "--only", "forest")
    assert done.returncode == 1
    assert "forest: left out" in done.stdout
    assert not (tmp_path / "none.png").exists()


def test_every_crop_is_named_once_and_square():
    with (BENCHMARKS / "crops.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["what"] for row in rows}) == len(rows) > 20
    for row in rows:
        assert min(int(row["x"]), int(row["y"])) >= 0
        assert int(row["side"]) > 32
        assert not Path(row["image"]).is_absolute()
