import numpy as np
import pytest

from geomoe import GeomoeError
from geomoe.evaluation.statistics import bootstrap_mean, holm, wilcoxon


def test_of_one_seed_and_many_images_it_is_the_normal_interval():
    scores = np.random.default_rng(1).normal(30, 2, (1, 2000))
    found = bootstrap_mean(scores)
    half = 1.96 * scores.std() / np.sqrt(2000)
    assert found.mean == pytest.approx(scores.mean())
    assert found.low == pytest.approx(scores.mean() - half, abs=0.1 * half)
    assert found.half == pytest.approx(half, rel=0.05)


def test_of_two_images_every_replicate_is_known():
    """Means are 0, 1/2 and 1 with probabilities 1/4, 1/2 and 1/4."""
    found = bootstrap_mean(np.array([[0.0, 1.0]]), level=0.6)
    assert (found.low, found.mean, found.high) == (0, 0.5, 1)
    assert bootstrap_mean(np.array([[0.0, 1.0]]), level=0.4).half == 0


def test_an_image_brings_its_seeds_along():
    """Seeds that agree tell nothing new about other images."""
    one = np.random.default_rng(2).normal(size=(1, 400))
    assert bootstrap_mean(np.repeat(one, 5, 0)).half == pytest.approx(bootstrap_mean(one).half, rel=0.05)


def test_seeds_that_differ_widen_the_interval():
    scores = np.array([[0.0] * 500, [1.0] * 500])
    found = bootstrap_mean(scores)
    assert (found.low, found.high) == pytest.approx((0, 1))


def test_the_same_scores_give_the_same_interval():
    scores = np.random.default_rng(3).normal(size=(3, 50))
    assert bootstrap_mean(scores) == bootstrap_mean(scores)
    assert bootstrap_mean(scores, level=0.8).half < bootstrap_mean(scores).half


@pytest.mark.parametrize(
    ("scores", "level"), [(np.zeros((0, 3)), 0.95), (np.zeros(3), 0.95), (np.ones((1, 3)), 95)]
)
def test_what_has_no_interval_is_refused(scores, level):
    with pytest.raises(GeomoeError):
        bootstrap_mean(scores, level)


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
