"""Made satellites: what each does to an image, at values that a hand can work out."""

import pytest
import torch

from geomoe import GeomoeError
from geomoe.data.satellites import SATELLITES, Satellite, satellite


def grey(value, side=8):
    return torch.full((3, side, side), value)


def test_the_first_takes_an_image_as_it_is():
    image = torch.randint(256, (3, 9, 7), dtype=torch.uint8)
    assert torch.equal(SATELLITES["D1"](image, 0), image)
    assert torch.equal(SATELLITES["D1"](image.float() / 255, 0), image)


def test_coarser_pixels_are_means_of_finer_ones():
    stripes = torch.zeros(3, 8, 8)
    stripes[:, :, ::2] = 1
    assert (Satellite(coarser=2.0)(stripes, 0) == 128).all()
    assert Satellite(coarser=1.5)(torch.rand(3, 9, 7), 0).shape == (3, 9, 7)


def test_gamma_haze_and_bands():
    assert (Satellite(gamma=2.0)(grey(0.5), 0) == round(0.25 * 255)).all()
    assert (Satellite(haze=0.25)(grey(0.5), 0) == round(0.625 * 255)).all()
    red = torch.zeros(3, 2, 2)
    red[0] = 1
    mixed = SATELLITES["D2"](red, 0)
    assert mixed[:, 0, 0].tolist() == [204, 26, 0], "a column of the matrix"
    for name in ("D2", "D4"):
        assert torch.tensor(SATELLITES[name].bands).sum(1).tolist() == pytest.approx([1.0] * 3), (
            "grey stays grey"
        )


def test_noise_is_one_for_a_seed_and_as_large_as_it_says():
    satellite = SATELLITES["D3"]
    first, again, other = (satellite(grey(0.5, 64), seed).float() / 255 for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(0.03, rel=0.05)
    assert float(first.mean()) == pytest.approx(0.25 + 0.75 * 0.5**1.4, abs=2e-3)


def test_each_of_them_looks_different():
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = [of(image, 0).float() for of in SATELLITES.values()]
    for i, one in enumerate(made):
        for other in made[i + 1 :]:
            assert (one - other).abs().mean() > 5


def test_an_unknown_one_is_named():
    with pytest.raises(GeomoeError, match="no satellite is called 'D9'; there are: D1, D2, D3, D4"):
        satellite("D9")
