"""What a router saw in training, kept on the card."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import geomoe
from geomoe import GeomoeError, moe
from geomoe.data.super_resolution.sources import Source, said_of
from geomoe.evaluation.calibrate import calibrate
from geomoe.models.reference import RoutingReference
from geomoe.models.weights import load, read_card, save
from tests.models.sizes import tiny
from tests.models.test_weights import card_of


def _rows(count: int, seed: int) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    mix = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.0], [0.3, 0.0, 0.1]])
    return torch.randn(count, 3, generator=made) @ mix + 4


def test_the_threshold_lets_the_quantile_of_what_was_held_out_pass() -> None:
    held_out = _rows(4000, 1)
    reference = RoutingReference.learn(_rows(8000, 0), held_out, 0.99, "made up")
    ood_score = reference.ood_score(held_out)
    assert (ood_score > 1).double().mean() == pytest.approx(0.01, abs=5e-4)
    assert reference.ood_score(torch.full((1, 3), 40.0)) > 5
    # Of a Gaussian in three dimensions, the 99th percentile of the squared distance: chi-square's.
    assert reference.threshold == pytest.approx(11.34, rel=0.08)


def test_distances_are_those_of_the_core() -> None:
    rows, far = _rows(3000, 0), _rows(50, 1) * 3
    router = moe.Fallback(moe.switch_router(3, 4), 3, quantile=0.9)
    router.fit(rows)
    reference = RoutingReference.learn(rows, rows, 0.9, "made up")
    expected = (router.distance(far) / router.threshold).sqrt()
    assert torch.allclose(reference.ood_score(far).float(), expected, rtol=1e-3)


def test_the_card_gives_back_what_was_learned() -> None:
    reference = RoutingReference.learn(_rows(500, 0), _rows(200, 1), 0.99, "made up")
    again = RoutingReference.from_card(reference.for_card())
    assert again.digest() == reference.digest()
    assert torch.equal(again.ood_score(_rows(9, 2)), reference.ood_score(_rows(9, 2)))


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [1.0]},
        {"mean": "abc"},
        {"precision": [[1, 2], [3]]},
        {"threshold": 0},
        {"threshold": None},
        {"threshold": 10**400},
        {"threshold": float("inf")},
        {"quantile": 1.5},
        {"more": 1},
    ],
)
def test_a_damaged_reference_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    model = tiny("mfg_hmoe_light")
    held = RoutingReference.learn(_rows(500, 0), _rows(200, 1), 0.99, "made up").for_card()
    save(tmp_path / "w.safetensors", model, card_of(model, reference={**held, **change}))
    with pytest.raises(GeomoeError, match="reference"):
        load(str(tmp_path / "w.safetensors"))


def test_calibrating_keeps_the_tensors(tmp_path: Path) -> None:
    model = tiny("mfg_hmoe_light")
    save(tmp_path / "w.safetensors", model, card_of(model))
    before = read_card(tmp_path / "w.safetensors")
    assert load(str(tmp_path / "w.safetensors")).reference is None
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(tmp_path / f"images/{i}.png")
    after = calibrate(tmp_path / "w.safetensors", tmp_path / "n.safetensors", tmp_path / "images")
    assert {**asdict(read_card(tmp_path / "n.safetensors")), "reference": {}} == asdict(before)
    assert after.hash == before.hash
    reference = load(str(tmp_path / "n.safetensors")).reference
    assert reference is not None
    assert "4 images held out" in reference.data


def test_calibrating_what_routes_nothing_is_refused(tmp_path: Path) -> None:
    model = geomoe.create_model("edsr", scale=2)
    card = replace(card_of(tiny("mfg_hmoe_light")), model="edsr", config=asdict(model.config))
    save(tmp_path / "w.safetensors", model, card)
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")
    with pytest.raises(GeomoeError, match="holds 1 images"):
        calibrate(tmp_path / "w.safetensors", tmp_path / "n.safetensors", tmp_path)
    for i in range(20):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{i}.png")
    with pytest.raises(GeomoeError, match="routes nothing"):
        calibrate(tmp_path / "w.safetensors", tmp_path / "n.safetensors", tmp_path)
    with pytest.raises(GeomoeError, match="quantile"):
        calibrate(tmp_path / "w.safetensors", tmp_path / "n.safetensors", tmp_path, quantile=1.0)
    with pytest.raises(GeomoeError, match="make the folder first"):
        calibrate(tmp_path / "w.safetensors", tmp_path / "no" / "n.safetensors", tmp_path)


@pytest.mark.slow
def test_weights_of_mixed_sources_are_calibrated_on_the_sources_of_their_card(tmp_path: Path) -> None:
    model = tiny("mfg_hmoe_light", informed=True)
    sources = [Source("a", "a", share=2, gsd=10), Source("made", made=("ramps", "flat"))]
    data = {"layout": "mixed", "validation": 0.2, "forget": 0.4, "sources": [said_of(one) for one in sources]}
    card = replace(card_of(model), data=data, degradation="mixed", recipe={"patch_size": 8})
    save(tmp_path / "w.safetensors", model, card)
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(tmp_path / f"a/{i}.png")
    after = calibrate(tmp_path / "w.safetensors", tmp_path / "n.safetensors", tmp_path)
    assert after.hash == read_card(tmp_path / "w.safetensors").hash
    reference = load(str(tmp_path / "n.safetensors")).reference
    assert reference is not None
    assert "9 images held out" in reference.data  # one of the folder, four of each kind of surface
    save(tmp_path / "w.safetensors", model, replace(card, data={"sources": [{"name": "a"}]}))
    with pytest.raises(GeomoeError, match="does not say how its sources were mixed"):
        calibrate(tmp_path / "w.safetensors", tmp_path / "m.safetensors", tmp_path)
