"""A published checkpoint, once converted, is an arm of a benchmark that starts from it."""

import json
from pathlib import Path

import pytest
import torch

from geomoe.evaluation.benchmark import read_benchmark, run_benchmark
from geomoe.models import load
from geomoe.models.published import convert, to_published
from geomoe.models.published.swinir import SWINIR
from tests.evaluation.test_benchmark import FILE, data, here, written  # noqa: F401
from tests.models.sizes import tiny


@pytest.mark.filterwarnings("ignore")
def test_an_arm_starts_from_a_converted_file(data: Path, tmp_path: Path) -> None:  # noqa: F811
    model = tiny("swinir")
    torch.save({"params": to_published(SWINIR, model)}, tmp_path / "theirs.pth")
    start = tmp_path / "theirs.safetensors"
    card = convert(tmp_path / "theirs.pth", start)
    shape = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in card.config.items()
        if key not in ("scale", "bands")
    }
    recipe = {"model": {"start": str(start), "learning_rate": 1e-9}, "trainer": {"max_steps": 3}}
    arms = {"theirs": {"model": "swinir", "options": shape, "recipe": recipe}}
    config = read_benchmark(written(tmp_path, arms=arms, flagship="theirs", seeds=[0]))
    run_benchmark(config, data, tmp_path / "out", train=here, device="cpu")
    best = load(str(next((tmp_path / "out").rglob("best.safetensors"))))
    assert best.card.recipe["start"]["recipe"]["sha256"] == card.recipe["sha256"]
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(best.model.state_dict()[name], tensor, atol=1e-6, rtol=0)
    assert json.loads(next((tmp_path / "out").rglob("result.json")).read_text())["psnr"]
