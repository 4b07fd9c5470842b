"""Scores of several seeds: image by image where these are the same, and of all as one where not."""

import numpy as np
import pytest

from geomoe.evaluation.benchmark.groups import apart, of, paired, scores, sizes
from geomoe.evaluation.benchmark.result import Result


def result(seed, found, counts=None):
    usual = {"hash": "", "arm": "moe", "steps": 1, "seconds": 1.0, "scored": "", "baseline": {"oa": 0.0},
             "curve": [], "weights": "", "commit": "", "hardware": "", "config": {}}  # fmt: skip
    by_image = {image: {"oa": value} for image, value in found.items()}
    return Result(**usual, seed=seed, scores=by_image, sizes=counts or {})


def test_seeds_of_the_same_images_are_crossed_with_them():
    of_two = [result(0, {"a": 0.2, "b": 0.6}), result(1, {"b": 0.4, "a": 0.0})]
    assert not apart(of_two)
    np.testing.assert_allclose(scores(of_two, [0, 1], of("oa")), [[0.2, 0.6], [0.0, 0.4]])


def test_of_seeds_that_split_anew_each_has_one_mean_by_its_own_sizes():
    mine = [result(0, {"a": 0.2, "b": 0.6}, {"a": 1, "b": 3}), result(1, {"c": 0.4}, {"c": 9})]
    theirs = [result(0, {"a": 0.1, "b": 0.1}, {"a": 1, "b": 3}), result(1, {"c": 0.6}, {"c": 9})]
    assert apart(mine)
    assert sizes(mine, "oa") is None
    np.testing.assert_allclose(scores(mine, [0, 1], of("oa")), [[0.5], [0.4]])
    np.testing.assert_allclose(paired(mine, theirs, of("oa")), [[0.4], [-0.2]])
    assert paired(mine, theirs[:1], of("oa")) == pytest.approx(np.array([[0.1, 0.5]]))


def test_other_shares_of_the_same_image_are_apart_too():
    mine = [
        result(0, {"a": 0.2, "b": 0.6}, {"a": 1, "b": 3}),
        result(1, {"a": 0.2, "b": 0.6}, {"a": 1, "b": 1}),
    ]
    np.testing.assert_allclose(scores(mine, [0, 1], of("oa")), [[0.5], [0.4]])
