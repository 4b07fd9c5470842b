"""Losses of maps: hard pixels, whole classes, and their outlines."""

import math

import pytest
import torch

from geomoe.layers.pixel_losses import boundary, cross_entropy, hard_pixels, lovasz


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


def squares(move: int = 0) -> torch.Tensor:
    """A square of class 1, 8 pixels wide, ``[1, 24, 24]``."""
    found = torch.zeros(1, 24, 24, dtype=torch.long)
    found[:, 8:16, 8 + move : 16 + move] = 1
    return found


def sure(classes: torch.Tensor) -> torch.Tensor:
    return 100 * torch.nn.functional.one_hot(classes, 2).permute(0, 3, 1, 2).float()


def test_lovasz_is_1_less_iou_of_what_is_sure() -> None:
    said, truth = squares(2), squares()
    both, either = (
        (said & truth).sum().item() for said, truth in ((said, truth), (said | truth, said | truth))
    )
    of_square, rest = both / either, (576 - either) / (576 - both)
    assert lovasz(sure(said), truth).item() == pytest.approx(1 - (of_square + rest) / 2, abs=1e-5)
    assert lovasz(sure(truth), truth).item() == pytest.approx(0, abs=1e-6)


def test_lovasz_counts_no_pixel_without_a_class_and_no_class_that_is_not_there() -> None:
    truth = squares().masked_fill(torch.arange(24) >= 16, -1)
    x = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = lovasz(x, truth)
    found.backward()
    assert not x.grad[..., 16:].any()
    assert x.grad[..., :16].any()
    torch.testing.assert_close(found, lovasz(x[..., :16], truth[..., :16]))


def test_outlines_within_two_pixels_are_right() -> None:
    truth = squares()
    assert boundary(sure(squares(2)), truth).item() == pytest.approx(0, abs=1e-5)
    assert 0.1 < boundary(sure(squares(4)), truth).item() < boundary(sure(squares(6)), truth).item() < 1
    unknown = truth.masked_fill(truth == 0, -1)
    assert boundary(sure(squares(6)), unknown).item() == 0, "no class meets another one that is known"


def test_a_blurred_outline_moves_to_the_true_one() -> None:
    x, truth = (0.1 * sure(squares(5)) - 5).requires_grad_(), squares()
    optimizer = torch.optim.Adam([x], 0.5)
    before = boundary(x, truth).item()
    for _ in range(30):
        optimizer.zero_grad()
        (boundary(x, truth) + cross_entropy(x, truth)).backward()
        optimizer.step()
    assert boundary(x, truth).item() < before / 4
