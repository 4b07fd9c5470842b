"""The memory of features, as it is counted for the card of weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from geomoe.models.activations import bytes_per_pixel, live_bytes
from geomoe.models.weights import read_card, save
from tests.models.sizes import tiny
from tests.models.test_weights import card_of


def test_what_lives_at_once_is_counted() -> None:
    image = torch.rand(1, 3, 10, 10)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 2, 1))
    assert live_bytes(model, image) == 2 * 8 * 100 * 4  # before and after the sigmoid
    assert live_bytes(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten()), image) == 8 * 100 * 4  # a view is none


def test_parameters_and_the_image_do_not_count() -> None:
    assert live_bytes(nn.Flatten(), torch.rand(1, 3, 10, 10)) == 0
    assert live_bytes(nn.Conv2d(1, 1, 9, padding=4), torch.rand(1, 1, 4, 4)) == 16 * 4


@pytest.mark.parametrize("name", ["edsr", "mfg_hmoe"])
def test_a_pixel_takes_as_much_of_a_larger_image(name: str) -> None:
    model = tiny(name).eval()
    small, large = (live_bytes(model, torch.rand(1, 3, side, side)) / side**2 for side in (96, 192))
    assert large == pytest.approx(small, rel=0.15)
    state = torch.random.get_rng_state()
    assert bytes_per_pixel(model) == pytest.approx(small, rel=0.02)
    assert torch.equal(torch.random.get_rng_state(), state), "a training goes on as if nobody had counted"


def test_the_card_keeps_it(tmp_path: Path) -> None:
    model, path = tiny("unet_spatial_moe"), tmp_path / "w.safetensors"
    card = replace(card_of(model), model="unet_spatial_moe", task="segmentation")
    assert save(path, model, card).activations > 100
    save(path, model, replace(read_card(path), activations=77))
    assert read_card(path).activations == 77, "what was counted once is not counted again"


def test_a_model_of_whole_samples_has_no_tiles_to_plan_for() -> None:
    assert bytes_per_pixel(tiny("convnext_t")) == 0
