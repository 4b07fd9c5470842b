import numpy as np
import pytest
from scipy import stats

from geomoe import GeomoeError
from geomoe.evaluation.statistics import (
    Interval,
    agreement,
    bootstrap_interval,
    holm,
    mean_interval,
    rank_arms,
    wilcoxon,
)


def test_of_one_seed_it_is_the_interval_of_student():
    scores = np.random.default_rng(1).normal(30, 2, (1, 40))
    found = mean_interval(scores)
    expected = stats.t.interval(0.95, 39, scores.mean(), stats.sem(scores[0]))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.mean == pytest.approx(scores.mean())


def test_where_seeds_decide_it_is_the_interval_of_their_means():
    """Three seeds without a difference between images: t of 2 degrees of freedom, 4.303."""
    found = mean_interval(np.repeat([[0.0], [1.0], [2.0]], 500, 1))
    assert found.mean == 1
    assert found.half == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)


def test_an_image_brings_its_seeds_along():
    """Seeds that agree tell nothing new about other images."""
    one = np.random.default_rng(2).normal(size=(1, 400))
    assert mean_interval(np.repeat(one, 5, 0)).half == pytest.approx(mean_interval(one).half)


def test_equal_scores_have_no_width():
    assert mean_interval(np.full((3, 5), 0.5)).half == 0
    assert mean_interval(np.array([[2.0]])).half == 0


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.05), (3, 0.05), (3, 1.0), (10, 0.3)])
def test_it_covers_what_it_says(seeds, spread):
    """Of 1,000 experiments with seeds and images as they may be, 95 % or more, but not all."""
    rng, covered = np.random.default_rng(4), 0
    for _ in range(1000):
        by_seed, by_image = rng.normal(0, spread, (seeds, 1)), rng.normal(0, 0.3, (1, 60))
        found = mean_interval(by_seed + by_image + rng.normal(0, 0.3, (seeds, 60)))
        covered += found.low <= 0 <= found.high
    assert 930 <= covered < 1000


def test_a_lower_level_is_narrower():
    scores = np.random.default_rng(3).normal(size=(3, 50))
    assert mean_interval(scores, level=0.8).half < mean_interval(scores).half


@pytest.mark.parametrize(
    ("scores", "level"), [(np.zeros((0, 3)), 0.95), (np.zeros(3), 0.95), (np.ones((1, 3)), 95)]
)
def test_what_has_no_interval_is_refused(scores, level):
    with pytest.raises(GeomoeError):
        mean_interval(scores, level)


def test_wilcoxon_of_six_gains_is_exact():
    """Of the 2^6 signs of the ranks, all plus and all minus are as extreme: 2 / 64."""
    assert wilcoxon(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])) == pytest.approx(2 / 64)
    # Rank sum 1 of the minuses: {} and {1}, twice: 4 / 64. A zero is left out.
    assert wilcoxon(np.array([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.0])) == pytest.approx(4 / 64)
    assert wilcoxon(np.zeros(9)) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("scores", "tau"),
    [
        ([[1, 2, 3], [10, 20, 30]], 1),
        ([[1, 2, 3], [3, 2, 1]], -1),
        ([[1, 2, 3], [1, 3, 2]], 1 / 3),  # two of three pairs in one order
        ([[1, 2, 3], [1, 2, 3], [3, 2, 1]], -1 / 3),
        ([[1, 2, 3], [5, 5, 5]], 0),
    ],
)
def test_agreement_is_the_mean_of_kendalls_tau(scores, tau):
    assert agreement(np.array(scores, dtype=float)) == pytest.approx(tau)


def test_the_bootstrap_covers_other_images_and_is_always_the_same():
    scores = np.random.default_rng(0).normal(1, 2, 400)
    found = bootstrap_interval(scores)
    assert found == bootstrap_interval(scores)
    assert found.mean == scores.mean()
    assert found.half == pytest.approx(1.96 * 2 / 20, rel=0.15)
    assert bootstrap_interval(np.array([3.0, 3.0])) == Interval(3, 3, 3)
    assert np.isnan(bootstrap_interval(np.array([3.0])).low)
    assert bootstrap_interval(np.array([3.0])).ends is None
    with pytest.raises(GeomoeError):
        bootstrap_interval(np.array([]))


def test_a_large_image_counts_for_more_where_sizes_are_given():
    scores, sizes = np.array([1.0, 0.0, 0.0]), np.array([8.0, 1.0, 1.0])
    found = bootstrap_interval(scores, sizes=sizes)
    assert found.mean == 0.8
    assert found.low == 0 < found.high == 1
    assert bootstrap_interval(scores, sizes=np.ones(3)) == bootstrap_interval(scores)


def test_the_critical_difference_is_that_of_the_tables():
    """Demsar 2006, section 3.2.2: four classifiers on 14 data sets are distinguished from 1.25 ranks on."""
    scores = np.tile([0.4, 0.3, 0.2, 0.1], (14, 1))
    found = rank_arms(scores)
    assert found.ranks == (1, 2, 3, 4)
    assert found.critical == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert found.groups == [(0, 1), (1, 2), (2, 3)]


def test_arms_that_tie_everywhere_do_not_differ():
    found = rank_arms(np.ones((12, 3)))
    assert (found.p, found.ranks, found.groups) == (1.0, (2, 2, 2), [(0, 1, 2)])


@pytest.mark.parametrize("shape", [(9, 4), (50, 2)])
def test_too_few_blocks_or_arms_have_no_test(shape):
    assert rank_arms(np.random.default_rng(0).normal(size=shape)) is None


@pytest.mark.parametrize(("blocks", "arms", "ties"), [(10, 5, False), (12, 3, False), (60, 4, True)])
def test_equal_arms_are_called_different_at_the_stated_rate(blocks, arms, ties):
    """Friedman's test and Nemenyi's of all pairs, each at 5 %; of answers that are right or wrong, too."""
    rng, alarms, pairs = np.random.default_rng(5), 0, 0
    for _ in range(600):
        scores = rng.normal(size=(blocks, arms)) + rng.normal(size=(blocks, 1))
        found = rank_arms((scores > 0).astype(float) if ties else scores)
        alarms += found.p < 0.05
        pairs += np.ptp(found.ranks) > found.critical
    assert alarms / 600 < 0.075
    assert pairs / 600 < 0.075
    assert ties or alarms / 600 > 0.025


NORMAL = ("normal", lambda rng, n: rng.normal(30, 3, n), 30)
SKEWED = ("skewed", lambda rng, n: rng.gamma(3, 1, n), 3)
RIGHT = ("nearly all right", lambda rng, n: (rng.random(n) < 0.95).astype(float), 0.95)


@pytest.mark.parametrize(
    ("draw", "truth", "images"),
    [(draw, truth, n) for _, draw, truth in (NORMAL, SKEWED, RIGHT) for n in (15, 60)],
    ids=[f"{name}, {n}" for name, *_ in (NORMAL, SKEWED, RIGHT) for n in (15, 60)],
)
def test_a_bootstrap_covers_what_it_says(draw, truth, images):
    rng, covered = np.random.default_rng(8), 0
    for _ in range(300):
        found = bootstrap_interval(draw(rng, images), draws=400)
        covered += found.low <= truth <= found.high
    assert 0.9 <= covered / 300 <= 0.995


@pytest.mark.parametrize(("seeds", "images", "right"), [(1, 30, 0.95), (1, 100, 0.7), (3, 60, 0.95)])
def test_shares_of_right_answers_are_covered_under_other_seeds_and_images(seeds, images, right):
    """Images are easy or hard for all seeds alike, and a seed is better or worse on all images."""
    rng, covered = np.random.default_rng(9), 0
    for _ in range(500):
        chance = rng.beta(20 * right, 20 * (1 - right), (1, images)) + rng.normal(0, 0.01, (seeds, 1))
        found = mean_interval((rng.random((seeds, images)) < chance).astype(float))
        covered += found.low <= right <= found.high
    assert 0.9 <= covered / 500 <= 0.998


def test_that_all_were_right_does_not_mean_that_all_will_be():
    found = mean_interval(np.ones((1, 20)))
    assert found.mean == 1
    assert found.low < 0.95
    assert bootstrap_interval(np.ones(20)).low == pytest.approx(0.839, abs=1e-3), "Wilson's"


def of_one_seed(scores, sizes):
    return mean_interval(scores[None], sizes=sizes)


def by_bootstrap(scores, sizes):
    return bootstrap_interval(scores, draws=400, sizes=sizes)


@pytest.mark.parametrize("interval", [of_one_seed, by_bootstrap])
def test_a_mean_in_which_large_images_count_for_more_is_covered(interval):
    """Larger images have higher scores: the mean over pixels is not that over images."""
    rng, covered, every = np.random.default_rng(10), 0, np.arange(1, 201.0)
    for _ in range(200):
        sizes = rng.integers(1, 201, 40).astype(float)
        found = interval(sizes / 200 + rng.normal(0, 0.2, 40), sizes)
        covered += found.low <= np.average(every / 200, weights=every) <= found.high
    assert 0.9 <= covered / 200 <= 0.995
