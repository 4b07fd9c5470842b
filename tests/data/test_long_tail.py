"""Long-tailed subsets, and draws that are even over classes all the same."""

import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.data.labels import LabelStream
from geomoe.data.long_tail import long_tail

LABELS = [name for name in "edcba" for _ in range(75)]


def test_classes_fall_off_exponentially_in_an_order_of_chance():
    kept = long_tail(LABELS, 0.04)
    assert kept == sorted(set(kept)) == long_tail(LABELS, 0.04)
    numbers = {name: sum(LABELS[i] == name for i in kept) for name in "abcde"}
    order = np.random.default_rng(0).permutation(5)
    assert [numbers["abcde"[i]] for i in order] == [75, 34, 15, 7, 3]  # 75 * .04^(r / 4)
    assert long_tail(LABELS, 0.04, 1) != kept


def test_a_share_of_1_keeps_all_and_a_small_one_a_sample_of_each():
    assert long_tail(LABELS, 1.0) == list(range(len(LABELS)))
    assert {LABELS[i] for i in long_tail(LABELS, 1e-9)} == set("abcde")
    with pytest.raises(GeomoeError, match="imbalance=0: expected a share above 0"):
        long_tail(LABELS, 0)


def test_a_balanced_stream_shows_each_class_as_often():
    labels = torch.tensor([0] * 90 + [2] * 9 + [5])
    images = torch.rand(100, 1, 1, 1)
    stream = LabelStream(images, labels, 0, 0, 600, even=True)
    drawn = [int(stream[i]["label"]) for i in range(len(stream))]
    counts = np.bincount(drawn)
    assert set(np.flatnonzero(counts)) == {0, 2, 5}
    assert counts[counts > 0].min() > 150
    again = LabelStream(images, labels, 0, 300, 1, even=True)[0]
    assert int(again["label"]) == drawn[300], "nothing depends on what was drawn before"
