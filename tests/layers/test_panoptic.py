"""Instances of masks, and how they are found again."""

import pytest
import torch

from geomoe.layers.panoptic import (
    REACH,
    centre_targets,
    components,
    find_centres,
    group_pixels,
    panoptic_map,
    segments_of,
)
from geomoe.metrics.panoptic import PanopticScores


def squares(side=8, size=24):
    """Two squares of class 0 that touch, on class 1: mask and numbers of instances."""
    numbers = torch.zeros(1, size, size, dtype=torch.int64)
    numbers[0, 6 : 6 + side, 4 : 4 + side] = 1
    numbers[0, 6 : 6 + side, 4 + side : 4 + 2 * side] = 2
    return (numbers == 0).long(), numbers


def scores(said, true, things=(0,), classes=2):
    metric = PanopticScores(things, classes)
    metric.update(said, true)
    return {name: float(value) for name, value in metric.compute().items()}


def test_instances_are_what_hangs_together_and_is_large_enough():
    mask = torch.ones(2, 9, 9, dtype=torch.int16)
    mask[0, 0:3, 0:3] = 0
    mask[0, 3:6, 3:6] = 0  # touches it at a corner
    mask[0, 8, 8] = 0
    mask[0, 0:2, 5:8] = 2
    mask[1, 4] = 0
    found = components(mask, (0, 2), least=6)
    assert found.amax((1, 2)).tolist() == [3, 1]
    assert [int((found[0] == i).sum()) for i in (1, 2, 3)] == [9, 9, 6]
    assert found[0, 8, 8] == 0
    true = segments_of(mask, (0, 2), least=6)
    assert true[0, 8, 8].tolist() == [-1, 0], "too small to be found"
    assert true[0, 0, 4].tolist() == [1, 0]


def test_true_centres_and_offsets_give_touching_squares_apart():
    mask, numbers = squares()
    heat, offsets = centre_targets(numbers)
    assert heat.amax() == 1
    assert offsets[0, :, 6, 4].tolist() == [3.5, 3.5]
    assert not offsets[:, :, mask[0] == 1].any()
    classes = torch.nn.functional.one_hot(mask, 2).movedim(-1, 1).float()
    true = torch.stack([mask, numbers], -1)
    found = panoptic_map(classes, heat, offsets, (0,))
    assert scores(found, true) == {
        f"{name}{ending}": 1 for ending in ("", "_things", "_stuff") for name in ("pq", "sq", "rq")
    }


def test_what_hangs_together_is_one_instance_without_centres():
    """Of an intersection over union of .5 with each square: more is asked for."""
    mask, numbers = squares()
    classes = torch.nn.functional.one_hot(mask, 2).movedim(-1, 1).float()
    true = torch.stack([mask, numbers], -1)
    alone = panoptic_map(classes, torch.zeros(1, 1, 24, 24), torch.zeros(1, 2, 24, 24), (0,))
    joined = torch.stack([mask, components(mask, (0,))], -1)
    for said in (alone, joined):
        found = scores(said, true)
        assert found["pq_things"] == 0
        assert found["pq_stuff"] == 1
        assert found["pq"] == 0.5


def test_a_plateau_is_one_peak_and_low_ones_are_none():
    heat = torch.zeros(30, 30)
    heat[4:6, 4:6] = 0.9
    heat[4, 20] = 1.0
    heat[20, 20] = 0.05
    heat[24, 5], heat[24, 7] = 0.6, 0.5  # within the window of a higher one
    heat[10:12, 1:29] = 0.3  # a long one
    assert find_centres(heat).tolist() == [[4, 20], [4, 4], [24, 5], [10, 1]]
    assert find_centres(torch.zeros(5, 5)).shape == (0, 2)


@pytest.mark.parametrize("held", [1, 3, 100])
def test_pixels_go_where_they_point(monkeypatch, held):
    monkeypatch.setattr("geomoe.layers.panoptic._AT_ONCE", held)
    offsets = torch.zeros(2, 1, 8)
    offsets[1, 0, 3] = 4.0
    where = torch.arange(8)[None] != 5
    found = group_pixels(offsets, torch.tensor([[0.0, 0.0], [0.0, 7.0]]), where)
    assert found.tolist() == [[1, 1, 1, 2, 2, 0, 2, 2]]


def test_pixels_point_so_far_and_no_farther():
    offsets, where = torch.zeros(2, 1, 200), torch.ones(1, 200, dtype=torch.bool)
    offsets[1, 0, 100], offsets[1, 0, 101] = -64.0, -64.5
    found = group_pixels(offsets, torch.tensor([[0.0, 40.0]]), where)
    assert found[0].nonzero().flatten().tolist() == [*range(8, 73), 100]
    assert REACH == 64 + 32 + 3


def test_pixels_of_no_class_and_absent_classes_do_not_count():
    mask, numbers = squares()
    true = torch.stack([mask, numbers], -1)
    said = true.clone()
    said[0, 20:] = 0
    true[0, 20:, :, 0] = -1
    found = scores(said, true, classes=5)
    assert found["pq"] == found["sq_stuff"] == 1
    assert set(scores(true[:, :5], true[:, :5])) == {"pq", "sq", "rq", "pq_stuff", "sq_stuff", "rq_stuff"}


@pytest.mark.parametrize("things", [(0,), (0, 1)])
def test_only_things_have_instances(things):
    classes = torch.zeros(1, 2, 12, 12)
    classes[:, 1, :, 6:] = 1
    heat = torch.zeros(1, 1, 12, 12)
    heat[0, 0, 5, 2] = heat[0, 0, 5, 9] = 1
    found = panoptic_map(classes, heat, torch.zeros(1, 2, 12, 12), things)
    assert found[0, 0, :, 1].tolist() == [1] * 6 + [2 if 1 in things else 0] * 6
