"""Pixel-adaptive refinement, against values by hand."""

import pytest
import torch

from geomoe.layers.affinity import affinities, refine


def halves(side=12):
    """Dark to the left, bright to the right."""
    return (torch.arange(side) >= side // 2).float().expand(1, 3, side, side)


def test_weights_of_neighbours_add_up_to_one():
    found = affinities(torch.rand(2, 3, 7, 5), (1, 4))
    assert found.shape == (2, 16, 7, 5)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 7, 5))


def test_of_an_image_that_is_even_they_go_by_distance_alone():
    found = affinities(torch.full((1, 3, 9, 9), 0.4), (1, 2))[0, :, 4, 4]
    far = torch.tensor([2**0.5, 1, 2**0.5, 1, 1, 2**0.5, 1, 2**0.5] * 2)
    far[8:] *= 2
    by_hand = (1 / 16 + 0.01 * torch.softmax(-((far / (0.3 * far.std())) ** 2), 0)) / 1.01
    torch.testing.assert_close(found, by_hand)


def test_a_step_between_two_sides_by_hand():
    # A pixel whose neighbours to the right (3 of 8) are brighter by 1: the spread is that of five 0 and
    # three 1, so their weight is exp(-(1 / .3 std)²) of the others'.
    image = torch.zeros(1, 1, 5, 5)
    image[..., 3:] = 1
    found = affinities(image, (1,))[0, :, 2, 2]
    std = torch.tensor([0.0] * 5 + [1.0] * 3).std()
    less = torch.exp(-((1 / (0.3 * std)) ** 2))
    far = torch.tensor([2**0.5, 1, 2**0.5, 1, 1, 2**0.5, 1, 2**0.5])
    place = torch.softmax(-((far / (0.3 * far.std())) ** 2), 0)
    look = torch.tensor([1, 1, less, 1, less, 1, 1, less]) / (5 + 3 * less)
    torch.testing.assert_close(found, (look + 0.01 * place) / 1.01)


def test_what_is_the_same_everywhere_stays():
    values = torch.full((1, 2, 8, 8), 3.0)
    torch.testing.assert_close(refine(values, torch.rand(1, 3, 8, 8)), values)


def test_what_is_said_spreads_within_an_object_and_not_beyond_it():
    values = torch.zeros(1, 1, 12, 12)
    values[..., 2:10, 1:3] = 1  # of some pixels of the dark side
    found = refine(values, halves(), (1, 2), rounds=8)[0, 0]
    assert found[:, :6].mean() > 0.2
    assert found[4:8, 4:6].min() > 0.1, "pixels that nothing was said of"
    assert found[:, 6:].max() < 0.05


def test_distance_decides_how_far_a_round_goes():
    values = torch.zeros(1, 1, 9, 9)
    values[..., 4, 4] = 1
    one = refine(values, torch.zeros(1, 1, 9, 9), (3,), rounds=1)[0, 0]
    assert sorted(map(tuple, one.nonzero().tolist())) == [
        (y, x) for y in (1, 4, 7) for x in (1, 4, 7) if (y, x) != (4, 4)
    ]


def test_rounds_are_the_same_step_again():
    values, image = torch.rand(1, 2, 8, 6), torch.rand(1, 3, 8, 6)
    twice = refine(refine(values, image, (1, 2), 1), image, (1, 2), 1)
    torch.testing.assert_close(refine(values, image, (1, 2), 2), twice)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_classes_and_images_do_not_mix(dtype):
    values, image = torch.rand(2, 3, 6, 6).to(dtype), torch.rand(2, 3, 6, 6)
    found = refine(values, image, (1,), 3)
    assert found.dtype == dtype
    torch.testing.assert_close(found[1:, 1:2], refine(values[1:, 1:2], image[1:], (1,), 3))
