"""Speckle has the moments of the gamma distribution."""

import pytest
import torch

from geomoe.layers.speckle import draw_looks, speckle


@pytest.mark.parametrize("looks", [1, 4, 20])
def test_mean_is_one_and_variance_one_over_looks(looks: int) -> None:
    torch.manual_seed(0)
    drawn = speckle(torch.ones(1, 1, 500, 500), torch.tensor([looks]))
    assert drawn.mean() == pytest.approx(1, rel=0.01)
    assert drawn.var() == pytest.approx(1 / looks, rel=0.03)


def test_a_single_look_is_an_exponential_distribution() -> None:
    torch.manual_seed(0)
    drawn = speckle(torch.ones(1, 1, 500, 500), torch.tensor([1]))
    for bound in (0.1, 1.0, 3.0):
        below = 1 - torch.tensor(-bound).exp()
        assert (drawn < bound).float().mean() == pytest.approx(float(below), abs=0.005)


def test_each_image_has_looks_of_its_own_and_dark_stays_dark() -> None:
    torch.manual_seed(0)
    image = torch.full((2, 3, 64, 64), 200.0)
    image[:, :, :, :32] = 0
    drawn = speckle(image, torch.tensor([1, 16]))
    assert not drawn[..., :32].any()
    few, many = (drawn[i, :, :, 32:] / 200 for i in (0, 1))
    assert few.var() == pytest.approx(1, rel=0.1)
    assert many.var() == pytest.approx(1 / 16, rel=0.1)


def test_looks_are_drawn_from_the_choices_alike() -> None:
    torch.manual_seed(0)
    drawn = draw_looks(3000, (1, 2, 16))
    assert {look: int((drawn == look).sum()) > 900 for look in (1, 2, 16)} == {1: True, 2: True, 16: True}
    assert drawn.shape == (3000,)


def test_looks_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"looks=\[4, 0\]: expected numbers above 0"):
        speckle(torch.ones(2, 1, 2, 2), torch.tensor([4, 0]))
