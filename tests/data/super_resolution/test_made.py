"""Surfaces that are known everywhere, and versions of images."""

import math

import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.data.steps import Steps
from geomoe.data.super_resolution.made import SURFACES, fractal, get_surface, hills, made, ramp, waves
from geomoe.data.super_resolution.variants import VARIANTS, check_variants, vary


def test_surfaces_are_what_their_names_say():
    plane = ramp(9, 2.0, math.pi / 2)
    assert plane[4, 4] == 0
    np.testing.assert_allclose(plane[1:] - plane[:-1], 2.0)
    np.testing.assert_allclose(plane[:, 1:] - plane[:, :-1], 0.0, atol=1e-12)
    hill = hills(9, 0.5, 2.0)
    assert hill[4, 4] == 0.5
    assert hill[4, 6] == pytest.approx(0.5 * math.exp(-0.5))
    wave = waves(33, 0.1, 8.0, 0.0)
    assert wave[0, 16 + 2] == pytest.approx(0.1)
    np.testing.assert_allclose(wave[:, 8:], wave[:, :-8], atol=1e-12)


def test_a_fractal_surface_has_the_spectrum_that_was_asked_for():
    surface = fractal(128, 0.2, 2.0, np.random.default_rng(0))
    assert surface.std() == pytest.approx(0.2)
    power = np.abs(np.fft.rfft2(surface)) ** 2
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None])
    inside = (frequency > 0.03) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-4.0, abs=0.1)  # power is amplitude squared


@pytest.mark.parametrize("name", SURFACES)
def test_made_images_are_smooth_and_never_clipped(name):
    for seed in range(20):
        image = made(get_surface(name), np.random.default_rng(seed), 40, 3)
        assert image.shape == (3, 40, 40)
        assert image.dtype == torch.float32
        assert 0 <= image.min() <= image.max() <= 1
        flat = (image[:, 1:] == image[:, :-1]).all(1).float().mean()
        assert flat == 1 or flat < 0.1  # what is clipped is flat in parts
    again = made(get_surface(name), np.random.default_rng(19), 40, 3)
    assert torch.equal(image, again)


def test_a_surface_nobody_knows_is_refused_with_those_there_are():
    with pytest.raises(GeomoeError, match="'cliffs'; there are: ramps, hills"):
        get_surface("cliffs")


def test_variants_do_what_their_names_say():
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    equal = VARIANTS["equal"](image, rng)
    assert torch.equal(equal[0], equal[1])
    assert any(torch.equal(equal[0], band) for band in image)
    permuted = VARIANTS["permuted"](image, rng)
    assert sorted(band.sum().item() for band in permuted) == sorted(band.sum().item() for band in image)
    assert VARIANTS["dark"](image, rng).mean() < image.mean() < VARIANTS["bright"](image, rng).mean()
    faint, stretched = VARIANTS["faint"](image, rng), VARIANTS["stretched"](image * 0.3 + 0.2, rng)
    assert faint.std() < image.std() * 0.51
    torch.testing.assert_close(faint.mean((1, 2)), image.mean((1, 2)))
    assert stretched.min() == 0
    assert stretched.max() == 1


def test_variants_come_in_their_shares_and_keep_the_type():
    image = torch.randint(0, 256, (3, 6, 6), dtype=torch.uint8)
    rng = np.random.default_rng(1)
    found = [vary(image, {"dark": 0.25, "permuted": 0.25}, rng) for _ in range(400)]
    assert all(one.dtype == torch.uint8 for one in found)
    changed = sum(not torch.equal(one, image) for one in found)
    assert 150 < changed < 235  # one permutation of six changes nothing
    state = np.random.default_rng(2)
    assert vary(image, {}, state) is image
    assert state.random() == np.random.default_rng(2).random()  # nothing was drawn


def test_shares_of_variants_are_checked():
    for shares, match in (
        ({"upside_down": 0.1}, "'upside_down'; there are: equal"),
        ({"dark": -0.1}, "variants.dark"),
        ({"dark": 0.6, "bright": 0.6}, "sum to 1 at most"),
    ):
        with pytest.raises(GeomoeError, match=match):
            check_variants(shares)


def test_steps_are_those_of_so_many_bits():
    x = torch.linspace(-0.1, 1.1, 1001)
    assert len(Steps(3)(x).unique()) == 8
    assert (Steps(12)(x.clamp(0, 1)) - x.clamp(0, 1)).abs().max() <= 0.5 / 4095 + 1e-7
    with pytest.raises(GeomoeError, match="bits=17"):
        Steps(17)
