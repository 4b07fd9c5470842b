"""``geomoe models``, as a user runs it."""

import json
import re
from dataclasses import replace

from geomoe.models import available_weights, list_models, load, read_card
from geomoe.models.weights import save
from tests.cli.run import run


def test_models_shows_a_card(capsys, weights):
    status, said, _ = run(capsys, "models", weights, "--json")
    assert status == 0
    assert json.loads(said)["licence"] == "Apache-2.0"
    status, said, _ = run(capsys, "models", "mfg_hmoe", "--json")
    assert json.loads(said)["experts_per_group"] == 8, "a model without weights shows its configuration"
    assert run(capsys, "models", "--scale", 2)[0] == 2
    status, said, _ = run(capsys, "models", weights)
    assert "degradation" in said


def test_a_card_shows_what_training_began_from_in_short_lines(capsys):
    said = run(capsys, "models", "mfg_hmoe_light_x4")[1]
    legs = [line.split(maxsplit=1)[1] for line in said.splitlines() if line.split()[0] == "start"]
    assert legs
    assert all(re.fullmatch(r"[0-9a-f]{12}, after \d+ steps", leg) for leg in legs)


def test_models_says_of_each_what_it_is_and_how_large(capsys):
    said = run(capsys, "models")[1].partition("\n\n")[0]
    lines = {line.split()[0]: line for line in said.splitlines() if not line.startswith(" ")}
    assert lines.keys() - {"model"} == set(list_models())
    assert "…" not in said, "nothing is cut off"
    assert "43,089,923" in lines["edsr_l"], "the published count"
    assert "EDSR: Enhanced Deep Residual Networks" in lines["edsr"]
    assert lines["edsr"].split()[-1] == "-", "no weights ship with it"
    for name, path in available_weights().items():
        card = read_card(path)
        unit = " dB" if card.task == "super_resolution" else ""
        assert f"{name} {card.scores['gain']:+.2f}{unit}" in said


def test_a_card_shows_a_line_for_each_stage_of_the_training(capsys, weights, tmp_path):
    path = tmp_path / "staged.safetensors"
    stages = [
        {"name": "base", "share": 2.0, "trains": [f"blocks.{i}.weight" for i in range(99)], "losses": None},
        {"name": "head", "share": 1.0, "trains": [], "losses": {"cross_entropy": 0.5}},
    ]
    loaded = load(weights)
    save(path, loaded.model, replace(loaded.card, recipe={"stages": stages}))
    lines = run(capsys, "models", path)[1].splitlines()
    said = [line.split(maxsplit=1)[1] for line in lines if line.split()[0] == "stages"]
    assert said == ["base, share 2, trains 99 parts", "head, share 1, trains all, losses cross_entropy 0.5"]
