from dataclasses import replace

import pytest
import torch

from geomoe import moe
from geomoe.moe.pictures import expert_colours, expert_map_picture, usage_picture


def test_every_expert_has_a_colour_of_its_own():
    colours = expert_colours((5, 3, 1))
    assert colours.dtype == torch.uint8
    assert len(colours.unique(dim=0)) == 9


def test_an_expert_map_shows_the_first_choice():
    plan = moe.dual_router(4, (2, 2), 2)(torch.randn(24, 4), (2, 3, 4))
    picture = expert_map_picture(plan, 1)
    assert picture.shape == (3, 3, 4)
    expected = expert_colours((2, 2))[plan.experts.view(2, 3, 4, 2)[1, 2, 3, 0]]
    assert torch.equal(picture[:, 2, 3], expected)
    assert not expert_map_picture(replace(plan, kept=torch.zeros(24, 2, dtype=torch.bool))).any()
    with pytest.raises(ValueError, match="pixels"):
        expert_map_picture(replace(plan, grid=(24,)))


def test_usage_is_bands_as_high_as_the_shares():
    colours = expert_colours((3,))
    picture = usage_picture([torch.tensor([0.5, 0.0, 0.5]), torch.tensor([0.0, 1.0, 0.0])], (3,), 10, 20)
    assert (picture[:, :5, :10] == colours[0][:, None, None]).all()
    assert (picture[:, 5:, :10] == colours[2][:, None, None]).all()
    assert (picture[:, :, 10:] == colours[1][:, None, None]).all()
    with pytest.raises(ValueError, match="no loads"):
        usage_picture([], (3,))
