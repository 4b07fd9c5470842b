"""What a card says of the evaluations of its weights, by this version and by 0.1."""

import json

import pytest

import geomoe
from geomoe.models import load
from geomoe.models.weights import save
from tests.models.sizes import tiny
from tests.models.test_weights import card_of, rewrite

MEASURED = {
    "data": "EuroSAT, held out", "sensor": "sentinel-2", "gsd": 10, "degradation": "mtf",
    "noise": [0.001, 0.02], "protocol": "mfg_hmoe", "images": 300, "scores": {"psnr": 32.3, "ssim": 0.9},
    "baseline": {"psnr": 30.2, "ssim": 0.8}, "date": "2026-11-26", "commit": "", "ranks": "psnr",
}  # fmt: skip
BY_0_1 = {k: v for k, v in MEASURED.items() if k not in ("scores", "baseline", "ranks")}
BY_0_1 |= {"gain": 2.1, "bicubic": 30.2}


def test_cards_say_what_was_measured_and_older_ones_nothing(tmp_path):
    model = tiny("mfg_hmoe")
    path = tmp_path / "tiny.safetensors"
    save(path, model, card_of(model, measured=[MEASURED, {**MEASURED, "gsd": None, "noise": None}]))
    first, second = load(str(path)).card.evaluations
    assert first.for_card() == MEASURED
    assert first.gain == 2.1
    assert (first.noise, second.noise) == ((0.001, 0.02), None)
    assert first.describe() == "EuroSAT, held out (sentinel-2, 10 m), mtf"

    def older(metadata):
        card = json.loads(metadata["geomoe"])
        del card["measured"]
        return {"geomoe": json.dumps(card)}

    rewrite(path, older)
    assert load(str(path)).card.evaluations == ()


def test_what_version_0_1_measured_is_read_as_scores_by_name(tmp_path):
    model = tiny("mfg_hmoe")
    save(tmp_path / "w.safetensors", model, card_of(model, measured=[BY_0_1]))
    (one,) = load(str(tmp_path / "w.safetensors")).card.evaluations
    assert (one.scores, one.baseline, one.gain) == ({"psnr": 32.3}, {"psnr": 30.2}, 2.1)


@pytest.mark.parametrize(
    "held",
    [
        "x",
        {},
        {**BY_0_1, "gain": "much"},
        {**BY_0_1, "gain": float("nan")},
        {**BY_0_1, "bicubic": None},
        {**MEASURED, "scores": {"psnr": "much"}},
        {**MEASURED, "scores": {"ssim": 0.9}},
        {**MEASURED, "baseline": [30.2]},
        {**MEASURED, "scores": {"psnr": 32.3, "ssim": float("inf")}},
        {**MEASURED, "ranks": 1},
        {**MEASURED, "gsd": -1},
        {**MEASURED, "gsd": "10 m"},
        {**MEASURED, "noise": [0.1]},
        {**MEASURED, "noise": 3},
        {**MEASURED, "sensor": 7},
        {**MEASURED, "images": 1.5},
        {**MEASURED, "data": None},
        {**MEASURED, "more": 1},
    ],
)
def test_a_card_with_damaged_measurements_is_refused(tmp_path, held):
    model = tiny("mfg_hmoe")
    save(tmp_path / "x.safetensors", model, card_of(model, measured=[held]))
    with pytest.raises(geomoe.GeomoeError, match="what its card says") as caught:
        load(str(tmp_path / "x.safetensors"))
    assert "\n" not in str(caught.value)
