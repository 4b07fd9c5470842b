"""Mixtures of linear experts fitted by expectation-maximisation (Jacobs et al. 1991, Jordan and Jacobs 1994).

``p(y | x) = sum_e p(e | x) p_e(y | x)``. E step: responsibilities ``h_e ∝ p(e | x) p_e(y | x)``. M step:
each expert is fitted to the data by its responsibilities as weights, and the gate to the responsibilities
as targets.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from geomoe.estimators.gate import Array, Gate, fit_softmax, with_intercept

__all__ = ["MixtureOfExpertsClassifier", "MixtureOfExpertsRegressor"]


class _Mixture(BaseEstimator, ABC):  # type: ignore[misc]
    """What both mixtures share: expectation-maximisation, and the gate."""

    _gate: Gate
    _experts: Any

    def __init__(
        self,
        n_experts: int | Sequence[int] = 4,
        *,
        max_iter: int = 100,
        tol: float = 1e-6,
        ridge: float = 1e-3,
        n_init: int = 3,
        random_state: Any = None,
    ) -> None:
        self.n_experts = n_experts
        self.max_iter = max_iter
        self.tol = tol
        self.ridge = ridge
        self.n_init = n_init
        self.random_state = random_state

    def _fit(self, x: Array, y: Array) -> None:
        given = self.n_experts if isinstance(self.n_experts, Sequence) else (self.n_experts,)
        if not given or not all(isinstance(size, Integral) and size >= 1 for size in given):
            raise ValueError(
                f"n_experts={self.n_experts!r}: expected whole numbers from 1, one for each group"
            )
        sizes = tuple(int(size) for size in given)
        if self.n_init < 1:
            raise ValueError(f"n_init={self.n_init}: expected at least 1")
        random = check_random_state(self.random_state)
        self._mean, spread = x.mean(0), x.std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        inputs = self._inputs(x)
        best = -np.inf
        kept: tuple[Gate, Any, list[float]]
        for _ in range(self.n_init):
            history = self._climb(inputs, y, sizes, random)
            if history[-1] > best:
                best, kept = history[-1], (self._gate, self._experts, history)
        self._gate, self._experts, self.log_likelihood_ = kept
        self.n_iter_ = len(self.log_likelihood_) - 1
        if self.n_iter_ >= self.max_iter > 1 and self.tol >= 0:
            warnings.warn(
                f"no convergence after {self.n_iter_} steps; raise max_iter or tol", ConvergenceWarning, 2
            )

    def _inputs(self, x: Array) -> Array:
        return with_intercept((x - self._mean) / self._spread)

    def _climb(self, x: Array, y: Array, sizes: tuple[int, ...], random: Any) -> list[float]:
        self._gate = Gate(sizes, x.shape[1], random, self.ridge)
        self._experts = self._start(x, y, sum(sizes), random)
        history: list[float] = []
        for _ in range(self.max_iter + 1):
            joint = self._gate.log_probabilities(x) + self._log_density(x, y)  # [n, E]
            total = logsumexp(joint, axis=1, keepdims=True)
            history.append(float(total.sum()) - self._gate.penalty() - self._penalty())
            if len(history) > 1 and history[-1] - history[-2] < self.tol * len(x):
                break
            if len(history) > self.max_iter:
                break
            responsibilities = np.exp(joint - total)
            self._gate.fit(x, responsibilities)
            self._fit_experts(x, y, responsibilities)
        return history

    @abstractmethod
    def _start(self, x: Array, y: Array, experts: int, random: Any) -> Any: ...

    @abstractmethod
    def _log_density(self, x: Array, y: Array) -> Array: ...

    @abstractmethod
    def _fit_experts(self, x: Array, y: Array, responsibilities: Array) -> None: ...

    @abstractmethod
    def _penalty(self) -> float: ...

    def gate_proba(self, X: ArrayLike) -> Array:  # noqa: N803
        """``p(expert | x)``, ``[n, E]``, for inputs ``[n, d]``; groups one after the other."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=np.float64)
        gates: Array = np.exp(self._gate.log_probabilities(self._inputs(x)))
        return gates


class MixtureOfExpertsRegressor(RegressorMixin, _Mixture):  # type: ignore[misc]
    """Linear experts with normal noise, each of its own width, behind a softmax gate.

    Args:
        n_experts: E; or experts in each group, ``(2, 3)``, for the hierarchical mixture.
        max_iter: EM steps at most.
        tol: stop when a step gains less than this in log-likelihood a sample.
        ridge: penalty on coefficients (inputs are scaled to unit variance); what EM climbs is the
        log-likelihood less it.
        n_init: starts; the best is kept.
        random_state: seed of the starts.

    Attributes:
        log_likelihood_: penalised log-likelihood before the first step and after each; never falls.
        n_iter_: EM steps made.

    Example:
        >>> import numpy as np
        >>> x = np.linspace(-1, 1, 200)[:, None]
        >>> model = MixtureOfExpertsRegressor(2, random_state=0).fit(x, np.abs(x[:, 0]))
        >>> bool(model.score(x, np.abs(x[:, 0])) > 0.99)
        True
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Fit to inputs ``[n, d]`` and values ``[n]``."""
        x, values = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self._floor = max(1e-6 * float(np.var(values)), 1e-12)
        self._fit(x, np.asarray(values, np.float64))
        return self

    def _start(self, x: Array, y: Array, experts: int, random: Any) -> Any:
        coefficients = np.zeros((x.shape[1], experts))
        coefficients[-1] = random.choice(y, experts)
        return coefficients, np.full(experts, max(float(np.var(y)), self._floor))

    def _log_density(self, x: Array, y: Array) -> Array:
        coefficients, variance = self._experts
        error = y[:, None] - x @ coefficients
        density: Array = -0.5 * (error**2 / variance + np.log(2 * np.pi * variance))
        return density

    def _penalty(self) -> float:
        coefficients, variance = self._experts
        return float(0.5 * self.ridge * ((coefficients[:-1] ** 2).sum(0) / variance).sum())

    def _fit_experts(self, x: Array, y: Array, responsibilities: Array) -> None:
        coefficients, variance = (part.copy() for part in self._experts)
        shrink = self.ridge * np.diag([1.0] * (x.shape[1] - 1) + [0.0])  # the intercept goes free
        for e, h in enumerate(responsibilities.T):
            if h.sum() < 1e-8:
                continue  # nothing to learn from: as it was is as likely as anything
            gram = x.T @ (h[:, None] * x) + shrink
            coefficients[:, e] = np.linalg.lstsq(gram, x.T @ (h * y), rcond=None)[0]
            error = y - x @ coefficients[:, e]
            penalty = self.ridge * (coefficients[:-1, e] ** 2).sum()
            # The variance that is likeliest, given that it may not fall below the floor.
            variance[e] = max(((h * error**2).sum() + penalty) / h.sum(), self._floor)
        self._experts = coefficients, variance

    def predict(self, X: ArrayLike) -> Array:  # noqa: N803
        """``E[y | x]``, ``[n]``: the experts' means, weighed by the gate."""
        gates = self.gate_proba(X)
        x = validate_data(self, X, reset=False, dtype=np.float64)
        mean: Array = (gates * (self._inputs(x) @ self._experts[0])).sum(1)
        return mean


class MixtureOfExpertsClassifier(ClassifierMixin, _Mixture):  # type: ignore[misc]
    """Logistic experts behind a softmax gate.

    Args and attributes are those of :class:`MixtureOfExpertsRegressor`, and ``classes_``.
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Fit to inputs ``[n, d]`` and labels ``[n]``."""
        x, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_, encoded = np.unique(labels, return_inverse=True)
        self._fit(x, np.eye(len(self.classes_))[encoded])
        return self

    def _start(self, x: Array, y: Array, experts: int, random: Any) -> Any:
        return random.normal(0, 0.5, (experts, x.shape[1], y.shape[1]))

    def _log_density(self, x: Array, y: Array) -> Array:
        return np.stack([(y * log_softmax(x @ c, axis=1)).sum(1) for c in self._experts], 1)

    def _penalty(self) -> float:
        return float(0.5 * self.ridge * (self._experts**2).sum())

    def _fit_experts(self, x: Array, y: Array, responsibilities: Array) -> None:
        self._experts = np.stack(
            [
                fit_softmax(x, y, h, start, self.ridge)
                for h, start in zip(responsibilities.T, self._experts, strict=True)
            ]
        )

    def predict_proba(self, X: ArrayLike) -> Array:  # noqa: N803
        """``p(class | x)``, ``[n, classes]``."""
        gates = self.gate_proba(X)
        x = self._inputs(validate_data(self, X, reset=False, dtype=np.float64))
        each = np.stack([np.exp(log_softmax(x @ c, axis=1)) for c in self._experts], 1)  # [n, E, classes]
        mixed: Array = np.einsum("ne,nec->nc", gates, each)
        return mixed

    def predict(self, X: ArrayLike) -> Any:  # noqa: N803
        """The likeliest class of each input."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]
