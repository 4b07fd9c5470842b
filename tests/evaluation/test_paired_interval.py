"""Intervals of paired differences cover the truth as often as they say."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geomoe import GeomoeError
from geomoe.evaluation.statistics import paired_interval


def covered(draw, truth, runs=1000):
    """Share of runs whose interval at 95 % holds the truth."""
    rng = np.random.default_rng(0)
    found = [paired_interval(scores, sizes=sizes) for scores, sizes in (draw(rng) for _ in range(runs))]
    return np.mean([interval.low <= truth <= interval.high for interval in found])


@pytest.mark.parametrize("better", [0.03, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("worse", [0.01, 0.05])
def test_it_covers_where_scores_are_right_or_wrong(better, worse):
    def draw(rng):
        return rng.choice([1.0, 0.0, -1.0], 100, p=[better, 1 - better - worse, worse]), None

    assert 0.9 <= covered(draw, better - worse) <= 0.99


def test_it_has_a_width_where_nothing_differs_but_things_could():
    interval = paired_interval(np.zeros(100))
    assert interval.mean == 0
    assert interval.low == pytest.approx(-interval.high)
    assert 0.02 < interval.high < 0.04  # the rule of three says 3 %
    assert paired_interval(np.zeros(100), sizes=np.arange(1, 101.0)) == interval


@pytest.mark.parametrize("number", [16, 36, 100])
@pytest.mark.parametrize("shape", [1.0, 4.0])
def test_it_covers_skewed_differences(number, shape):
    assert 0.9 <= covered(lambda rng: (rng.gamma(shape, 1, number), None), shape) <= 0.99


@pytest.mark.parametrize("number", [16, 36])
def test_it_covers_a_ratio_of_sums_over_blocks_of_all_sizes(number):
    # Larger blocks gain more: the mean over pixels is not that over blocks.
    sizes = np.arange(1, 201)

    def draw(rng):
        size = rng.integers(1, 201, number).astype(float)
        return 0.001 * size + rng.normal(0, 0.1, number), size

    assert 0.9 <= covered(draw, float((0.001 * sizes * sizes).sum() / sizes.sum())) <= 0.99


def test_of_one_sample_nothing_is_known():
    interval = paired_interval(np.array([0.3]))
    assert interval.mean == 0.3
    assert interval.ends is None


def test_known_values():
    interval = paired_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert (interval.mean, interval.half) == pytest.approx((2.5, 3.182446 * 1.290994 / 2), rel=1e-6)
    weighted = paired_interval(np.array([0.5, 2.0]), sizes=np.array([3.0, 1.0]))
    assert weighted.mean == pytest.approx(0.875)
    with pytest.raises(GeomoeError, match="expected one for each"):
        paired_interval(np.array([]))


@pytest.mark.parametrize("reach", [1, 4])
def test_it_covers_over_blocks_of_one_image_whose_neighbours_are_alike(reach):
    # Of an image of 144 pixels a side 30 % have a truth, in squares of 12; it is cut into 6 x 6 blocks. Over
    # pixels, as if they were independent, the interval would cover a fifth to a half of the time.
    def blocks(field):
        return field.reshape(6, 24, 6, 24).sum((1, 3)).ravel()

    def draw(rng):
        known = np.kron(rng.random((12, 12)) < 0.3, np.ones((12, 12)))
        field = gaussian_filter(rng.normal(size=(144, 144)), reach, mode="nearest")
        size, total = blocks(known), blocks(field * known)
        return total[size > 0] / size[size > 0], size[size > 0]

    assert 0.9 <= covered(draw, 0, runs=200) <= 0.99
