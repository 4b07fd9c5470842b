"""Exemplars are those nearest to the mean of their class."""

import pytest
import torch

from geomoe.data.exemplars import looks, nearest_to_mean


def test_the_nearest_of_every_group_are_kept():
    features = torch.tensor([[0.0], [1.0], [5.0], [10.0], [11.0], [30.0]])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])  # means 2 and 17
    assert nearest_to_mean(features, groups, 1).tolist() == [1, 4]
    assert nearest_to_mean(features, groups, 2).tolist() == [0, 1, 3, 4]
    assert nearest_to_mean(features, groups, 3).tolist() == [0, 1, 2, 3, 4, 5]


def test_features_count_alike_whatever_their_unit():
    features = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(12) % 2
    scaled = features * torch.tensor([1.0, 1000.0])
    assert torch.equal(nearest_to_mean(features, groups, 3), nearest_to_mean(scaled, groups, 3))
    assert nearest_to_mean(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), 2).tolist() == [0, 1]


def test_a_group_that_is_too_small_is_said():
    with pytest.raises(ValueError, match="a group has 1 rows, of which 2 were to be kept"):
        nearest_to_mean(torch.rand(3, 1), torch.tensor([0, 0, 1]), 2)


def test_looks_are_colours_and_texture():
    flat, stripes = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, 1, 4, 4)
    stripes[..., ::2] = 1
    assert looks(flat).tolist()[0] == pytest.approx([0.5, 0, 0, 0])
    assert looks(stripes).tolist()[0] == pytest.approx([0.5, 0.5, 0, 12 / 16])
    turned = looks(stripes.flip(2).transpose(2, 3)).tolist()[0]
    assert turned == pytest.approx([0.5, 0.5, 12 / 16, 0])
    assert looks(torch.randint(256, (2, 3, 5, 5), dtype=torch.uint8)).shape == (2, 12)
    assert looks(torch.rand(2, 3, 1, 1)).isfinite().all()
