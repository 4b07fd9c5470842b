from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import geomoe
from geomoe.data.super_resolution.degradation import interpolated
from geomoe.evaluation.super_resolution.invention import (
    MOST_ERROR,
    MOST_NOISE,
    MOST_OVERSHOOT,
    bicubic,
    by_model,
    invention,
    own_overshoot,
    scene_overshoot,
)
from geomoe.evaluation.super_resolution.made_scenes import LEVELS, flat_noise, made_scenes, sea
from geomoe.layers.super_resolution.known import Known
from geomoe.models import available_weights
from geomoe.models.contract import ModelContract, Tiling
from tests.pipeline.fakes import FakeUpscaler
from tests.scenes import pixels, write_scene

SENTINEL2 = Path(__file__).parents[3] / "examples" / "data" / "sentinel2_l1c.tif"


class Bicubic(nn.Module):
    """And, on every other column, a little more."""

    def __init__(self, scale, stripes=0.0):
        super().__init__()
        self.scale, self.stripes = scale, stripes

    def forward(self, x, trace=None):
        result = interpolated(x, self.scale)
        result[..., ::2] += self.stripes
        return result


def predictor(scale, stripes=0.0):
    return FakeUpscaler(Bicubic(scale, stripes), ModelContract.of_images(scale, 3, Tiling(4, 16, 4)))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(("bands", "bits"), [(1, 8), (3, 16)])
def test_a_made_scene_is_the_mean_of_what_is_to_be_drawn_in_it(scale, bands, bits):
    kinds = set()
    for made in made_scenes(scale, bands, bits):
        kinds.add(made.kind)
        assert made.low.shape[0] == bands
        assert made.low.min() >= 0
        assert made.low.max() <= 1
        blocks = made.truth.unfold(1, scale, scale).unfold(2, scale, scale).mean((3, 4))
        rounding = 0.5 if bits == 8 else 0
        assert (blocks - made.low).abs().max() * LEVELS <= rounding + 1e-3
        whole = made.low * LEVELS
        assert torch.equal(whole.round() / LEVELS, made.low) == (bits == 8)
    assert kinds == {
        "ramp of 1 level a pixel", "ramp of 2 levels a pixel", "ramp of 4 levels a pixel",
        "hills", "slow waves", "relief",
    }  # fmt: skip


def test_a_ramp_rises_by_its_levels_along_every_direction():
    ramps = [made.low for made in made_scenes(2, 1, 16) if made.kind == "ramp of 4 levels a pixel"]
    rises = [LEVELS * (low[0, 5, 6] - low[0, 5, 5]).item() for low in ramps]
    falls = [LEVELS * (low[0, 6, 5] - low[0, 5, 5]).item() for low in ramps]
    assert len(ramps) == 16
    assert np.hypot(rises, falls) == pytest.approx(4, abs=1e-3)
    angles = np.sort(np.arctan2(falls, rises))
    assert np.diff(angles) == pytest.approx(np.pi / 8, abs=1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_made_sea_leaves_the_range_of_its_own_pixels(scale):
    """So that a result which is right does, too, and only what is beyond it is invented."""
    made = sea(scale, 16)
    assert made.truth.shape == (1, 64 * scale, 64 * scale)
    means = torch.nn.functional.avg_pool2d(made.truth[None], scale)[0]
    assert (means - made.low).std().item() * LEVELS == pytest.approx(1, rel=0.05)  # the noise
    right = invention(
        lambda low: made.truth.numpy() if low.shape == made.low.shape else bicubic(scale)(low), scale
    )
    assert 0.003 < right.own["made sea, 16 bits"] < 0.01
    assert right.worst[2] <= 1e-3


def test_a_scene_s_own_overshoot_is_that_over_itself_made_small(tmp_path):
    smooth = np.broadcast_to(
        100 + 60 * np.cos(np.arange(40) * np.pi / 40)[None, :, None], (1, 40, 36)
    ).astype(np.uint8)
    assert own_overshoot(write_scene(tmp_path / "smooth.tif", smooth), 4) == 0
    dotted = smooth.copy()
    dotted[:, 18, 18] = 255
    mask = np.ones((40, 36), dtype=bool)
    assert own_overshoot(write_scene(tmp_path / "dotted.tif", dotted, mask=mask), 4) == 1 / (40 * 36)
    mask[17, 17] = False  # in the same pixel of the scene downsampled
    assert own_overshoot(write_scene(tmp_path / "invalid.tif", dotted, mask=mask), 4) == 0


def test_noise_has_the_deviation_that_was_asked_for():
    for bits in (8, 16):
        low = flat_noise(127, 5, 3, bits) * LEVELS
        assert low.std().item() == pytest.approx(5, rel=0.05)
        assert torch.equal(low.round(), low) == (bits == 8)


@pytest.mark.parametrize("scale", [2, 4])
def test_bicubic_upsampling_invents_nothing(scale):
    found = invention(bicubic(scale), scale, quick=True)
    error, noise, share = found.worst
    assert error <= MOST_ERROR
    assert noise <= MOST_NOISE
    assert share <= MOST_OVERSHOOT
    assert error >= 0.5  # of 8-bit scenes, whose rounding nothing undoes


def test_what_is_added_to_nothing_is_found():
    plain = invention(bicubic(2), 2, quick=True)
    striped = invention(by_model(predictor(2, stripes=3 / LEVELS), "cpu"), 2, quick=True)
    for kind, error in striped.error.items():
        assert plain.error[kind] + 3 == pytest.approx(error, abs=0.7)
    assert striped.noise["2"] > plain.noise["2"] + 0.1
    assert striped.worst[2] > MOST_OVERSHOOT


def test_a_model_may_be_held_to_the_means_of_the_image():
    low = flat_noise(127, 5, 3, 16)
    for keep in (False, True):
        high = by_model(predictor(2, stripes=0.1), "cpu", keep_means=keep)(low.numpy())
        means = high.reshape(3, 48, 2, 48, 2).mean((2, 4))
        assert np.allclose(means, low.numpy(), atol=1e-5) == keep


def test_a_model_that_asks_is_told_the_noise_of_an_image():
    told = []

    class Asking(Bicubic):
        def forward(self, x, trace=None, known=None):
            told.append(known)
            return super().forward(x)

    contract = ModelContract.of_images(2, 3, Tiling(4, 16, 4), informed=True)
    low = flat_noise(127, 5, 1, 16)
    by_model(FakeUpscaler(Asking(2), contract), "cpu")(low.numpy())
    assert torch.allclose(told[0], Known.batch([Known(noise=5 / LEVELS)]), atol=0.1)
    assert not torch.allclose(told[0], Known.batch([Known()]), atol=0.1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_overshoot_of_a_scene_is_that_of_the_file_that_is_made_of_it(tmp_path, dtype):
    data = pixels(3, 40, 36, dtype)
    data[:, :10, :10] = 0
    mask = np.ones((40, 36), dtype=bool)
    mask[:10, :10] = False
    scene = write_scene(tmp_path / "scene.tif", data, mask=mask)
    ours, base = scene_overshoot(scene, model=predictor(2), scale=2, device="cpu")
    assert ours == pytest.approx(base, abs=2e-3)  # a rounding here and there
    assert base < 0.05  # what stands in pixels without data makes no edge
    striped, same = scene_overshoot(scene, model=predictor(2, stripes=0.4), scale=2, device="cpu")
    assert same == base
    assert striped > base + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in available_weights() if name.startswith("mfg_hmoe")))
def test_weights_that_ship_invent_nothing(name):
    model = geomoe.load(name)
    scale = model.contract.scale
    found = invention(by_model(model, "cpu"), scale, quick=True)
    real, _ = scene_overshoot(SENTINEL2, model=model, scale=scale, device="cpu")
    real -= own_overshoot(SENTINEL2, scale)
    error, noise, share = found.worst
    beyond = {
        f"error of {error:.2f} levels": error > MOST_ERROR,
        f"noise times {noise:.2f}": noise > MOST_NOISE,
        f"overshoot of {max(share, real):.2%}": max(share, real) > MOST_OVERSHOOT,
    }
    assert not any(beyond.values()), (beyond, found)
