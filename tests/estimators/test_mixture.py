import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from geomoe.estimators import MixtureOfExpertsClassifier, MixtureOfExpertsRegressor

quick = {"max_iter": 30, "n_init": 1, "random_state": 0}


def tent():
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (300, 2))
    return x, np.abs(x[:, 0]) + random.normal(0, 0.02, 300)


@pytest.mark.parametrize("experts", [1, 3, (2, 2), (2, 1, 3)])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", [MixtureOfExpertsRegressor, MixtureOfExpertsClassifier])
def test_the_likelihood_never_falls(kind, experts, seed):
    x, y = tent() if kind is MixtureOfExpertsRegressor else make_moons(200, noise=0.2, random_state=seed)
    model = kind(experts, max_iter=40, tol=-1, n_init=1, random_state=seed).fit(x, y)
    steps = np.diff(model.log_likelihood_)
    assert len(steps) == 40
    assert steps.min() >= -1e-7 * abs(model.log_likelihood_[-1])
    assert steps.sum() > 0


def test_two_lines_are_found_where_one_does_not_serve():
    x, y = tent()
    model = MixtureOfExpertsRegressor(2, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.98 > 0.2 > LinearRegression().fit(x, y).score(x, y)
    gates = model.gate_proba(x)
    np.testing.assert_allclose(gates.sum(1), 1)
    sides = gates[:, 0] > 0.5
    right = x[:, 0] > 0
    assert max((sides == right).mean(), (sides != right).mean()) > 0.95


def test_one_expert_is_linear_regression():
    x, y = tent()
    model = MixtureOfExpertsRegressor(1, ridge=0, random_state=0).fit(x, y)
    np.testing.assert_allclose(model.predict(x), LinearRegression().fit(x, y).predict(x), atol=1e-6)


def test_moons_are_told_apart_by_more_than_one_line():
    x, y = make_moons(300, noise=0.15, random_state=0)
    model = MixtureOfExpertsClassifier((2, 2), random_state=0).fit(x, y)
    assert model.score(x, y) > 0.95 > LogisticRegression().fit(x, y).score(x, y)


def test_a_seed_is_an_answer_and_clones_are_unfitted():
    x, y = tent()
    model = MixtureOfExpertsRegressor(3, **quick)
    first = model.fit(x, y).predict(x)
    assert np.array_equal(first, clone(model).fit(x, y).predict(x))
    for wrong in (0, 2.0, (2, 0), ()):
        with pytest.raises(ValueError, match="n_experts"):
            MixtureOfExpertsRegressor(wrong).fit(x, y)
    MixtureOfExpertsRegressor(np.int64(2), **quick).fit(x, y)
    with pytest.warns(ConvergenceWarning):
        MixtureOfExpertsRegressor(2, max_iter=2, n_init=1).fit(x, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([MixtureOfExpertsRegressor(2, **quick), MixtureOfExpertsClassifier(2, **quick)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)
