"""The loss of hard pixels leaves the others in peace."""

import math

import pytest
import torch

from geomoe.layers.pixel_losses import cross_entropy, hard_pixels


def logits(probabilities: list[float]) -> torch.Tensor:
    """Of the first of two classes, ``[1, 2, 1, N]``."""
    p = torch.tensor(probabilities)
    return torch.stack([p, 1 - p]).log()[None, :, None]


def test_pixels_that_are_sure_enough_count_nowhere() -> None:
    truth = torch.zeros(1, 1, 5, dtype=torch.long)
    found = hard_pixels(logits([0.9, 0.99, 0.5, 0.1, 0.71]), truth)
    assert float(found) == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)


def test_the_hardest_fifth_always_counts() -> None:
    truth = torch.zeros(1, 1, 6, dtype=torch.long)  # of six pixels two
    found = hard_pixels(logits([0.9, 0.8, 0.99, 0.95, 0.97, 0.96]), truth)
    assert float(found) == pytest.approx(-(math.log(0.8) + math.log(0.9)) / 2)


def test_pixels_without_a_class_count_nowhere() -> None:
    truth = torch.tensor([[[0, -1, -1, 0, -1]], [[-1] * 5]])
    x = torch.cat([logits([0.9, 0.1, 0.1, 0.8, 0.1]), logits([0.1] * 5)]).requires_grad_()
    found = hard_pixels(x, truth)
    assert found.item() == pytest.approx(-math.log(0.8) / 2)  # one pixel of two; the other sample has none
    found.backward()
    assert not x.grad[1].any()
    assert not x.grad[0, :, :, 1].any()


def test_where_all_are_hard_it_is_the_cross_entropy() -> None:
    x, truth = torch.zeros(3, 4, 8, 8), torch.randint(-1, 4, (3, 8, 8))
    torch.testing.assert_close(hard_pixels(x, truth), cross_entropy(x, truth))
