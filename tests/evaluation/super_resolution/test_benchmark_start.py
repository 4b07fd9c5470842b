"""A published checkpoint, once converted, is an arm of a benchmark that starts from it."""

import json
from pathlib import Path

import pytest
import torch

from geomoe import GeomoeError
from geomoe.evaluation.benchmark import read_benchmark, run_benchmark
from geomoe.evaluation.benchmark.runs import plan_runs
from geomoe.evaluation.super_resolution.benchmark import locate_images
from geomoe.evaluation.super_resolution.evaluate import evaluate
from geomoe.models import load
from geomoe.models.published import convert, to_published
from geomoe.models.published.swinir import SWINIR
from tests.evaluation.super_resolution.tiny import FILE, here, written
from tests.models.sizes import tiny


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_arm_starts_from_a_converted_file(data: Path, tmp_path: Path) -> None:
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
    assert json.loads(next((tmp_path / "out").rglob("result.json")).read_text())["scores"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_arm_of_weights_is_scored_as_it_is_beside_one_that_is_trained(
    data: Path,
    tmp_path: Path,
) -> None:
    torch.save({"params": to_published(SWINIR, tiny("swinir"))}, tmp_path / "theirs.pth")
    weights = tmp_path / "theirs.safetensors"
    convert(tmp_path / "theirs.pth", weights)
    arms = {"routed": FILE["arms"]["routed"], "theirs": {"weights": str(weights)}}
    config = read_benchmark(written(tmp_path, arms=arms, seeds=[0, 1]))
    said: list[str] = []
    table = run_benchmark(config, data, tmp_path / "out", train=here, device="cpu", say=said.append)
    mine = evaluate(
        load(str(weights)), data / "test", degradation="bilinear", protocol="mfg_hmoe", device="cpu"
    )
    row = next(row for row in table.rows if row.arm == "theirs")
    assert row.scores["psnr"].mean == pytest.approx(mine.overall.values["psnr"], abs=1e-6)
    assert row.seeds == (0,)
    assert "theirs was not trained here: its weights are scored as they are." in table.notes
    assert not any("not finished" in note for note in table.notes)
    assert sum("theirs" in line and "is scored as it is" in line for line in said) == 1
    again = plan_runs(config, locate_images(config, data), tmp_path / "out")
    assert all(run.result is not None for run in again)
    other = tiny("swinir")
    torch.nn.init.zeros_(next(other.parameters()))
    torch.save({"params": to_published(SWINIR, other)}, tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", weights, overwrite=True)  # other weights of the same name
    changed = plan_runs(config, locate_images(config, data), tmp_path / "out")
    assert [run.result is None for run in changed if run.arm.name == "theirs"] == [True]


@pytest.mark.parametrize(
    ("arm", "word"),
    [
        ({"weights": 3}, "a name or path of weights"),
        ({"weights": "a.safetensors", "model": "edsr"}, "leave model out"),
        ({"weights": "a.safetensors", "recipe": {}}, "leave recipe out"),
    ],
)
def test_what_weights_exclude_is_said(arm: dict[str, object], word: str, tmp_path: Path) -> None:
    with pytest.raises(GeomoeError, match=word):
        read_benchmark(written(tmp_path, arms={"routed": FILE["arms"]["routed"], "theirs": arm}))
