"""The F measure of outlines: known values, and what has no class."""

import pytest
import torch

from geomoe.metrics.boundary import BoundaryF, outlines


def image(left: int, right: int) -> torch.Tensor:
    """Class 1 in columns ``left`` to ``right`` of 20, ``[1, 10, 20]``."""
    columns = torch.arange(20)
    return ((columns >= left) & (columns < right)).long().expand(1, 10, 20)


def score(said: torch.Tensor, truth: torch.Tensor, **options: int) -> list[float]:
    metric = BoundaryF(2, **options)
    metric.update(torch.nn.functional.one_hot(said, 2).permute(0, 3, 1, 2).float(), truth)
    return metric.compute().tolist()


def test_an_outline_is_what_meets_another_class() -> None:
    there = image(5, 9)[0] == 1
    found = outlines(there, torch.ones_like(there))
    assert found.nonzero()[:, 1].unique().tolist() == [5, 8]
    assert not outlines(there, there).any(), "the other class is not known"


def test_reach_decides() -> None:
    truth = image(5, 15)
    assert score(truth, truth) == [1, 1]
    assert score(image(7, 15), truth, reach=2) == [1, 1]
    assert score(image(8, 15), truth, reach=2) == pytest.approx([0.5, 0.5])  # one side of two, either way
    assert score(image(8, 15), truth, reach=3) == [1, 1]


def test_precision_and_recall_differ() -> None:
    said, truth = image(5, 20), image(5, 15)  # one side said and right; of the true sides one is found
    assert score(said, truth)[1] == pytest.approx(2 * 1 * 0.5 / 1.5)


def test_counts_add_up_over_images_and_a_class_without_outline_is_nan() -> None:
    metric = BoundaryF(3)
    for said in (image(5, 15), image(8, 15)):
        metric.update(torch.nn.functional.one_hot(said, 3).permute(0, 3, 1, 2).float(), image(5, 15))
    first, second, third = metric.compute().tolist()
    assert (first, second) == pytest.approx((0.75, 0.75))
    assert third != third


def test_what_has_no_class_has_no_outline() -> None:
    truth = image(5, 15).masked_fill(torch.arange(20) >= 12, -1)
    assert score(image(5, 18), truth) == [1, 1], "the right side is not looked at"
