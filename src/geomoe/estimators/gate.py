"""Softmax gates, flat and hierarchical, fitted to responsibilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

__all__ = ["Gate", "fit_softmax", "with_intercept"]

Array = NDArray[np.float64]


def with_intercept(x: Array) -> Array:
    """A column of ones behind ``[n, d]``."""
    return np.concatenate([x, np.ones((len(x), 1))], 1)


def fit_softmax(
    x: Array, targets: Array, weights: Array, start: Array, ridge: float, steps: int = 25
) -> Array:
    """Coefficients ``[d, classes]`` of the softmax likeliest for soft targets; never worse than ``start``.

    Args:
        x: ``[n, d]``, intercept included.
        targets: ``[n, classes]``; rows sum to 1.
        weights: ``[n]`` of the rows.
        start: ``[d, classes]``.
        ridge: half this times the squared coefficients is the penalty.
        steps: of L-BFGS.
    """

    def loss(flat: Array) -> tuple[float, Array]:
        coefficients = flat.reshape(start.shape)
        logits = x @ coefficients
        value = -(weights[:, None] * targets * log_softmax(logits, axis=1)).sum()
        slope = x.T @ (weights[:, None] * (softmax(logits, axis=1) - targets))
        penalty = 0.5 * ridge * (coefficients**2).sum()
        return float(value + penalty), (slope + ridge * coefficients).ravel()

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    better = loss(found.x)[0] <= loss(start.ravel())[0]
    return found.x.reshape(start.shape) if better else start


class Gate:
    """``p(expert | x)``: a softmax, or one over groups times one inside each group (Jordan and Jacobs 1994).

    Args:
        sizes: experts in each group; one group is a flat gate.
        features: width of x, intercept included.
        random: for the start; gates start almost even.
        ridge: on the coefficients.
    """

    def __init__(self, sizes: tuple[int, ...], features: int, random: Any, ridge: float) -> None:
        self.sizes, self.ridge = sizes, ridge
        self.top = random.normal(0, 0.1, (features, len(sizes)))
        self.members = [random.normal(0, 0.1, (features, size)) for size in sizes]

    def log_probabilities(self, x: Array) -> Array:
        """``[n, E]``."""
        top = log_softmax(x @ self.top, axis=1)
        parts = [top[:, [i]] + log_softmax(x @ member, axis=1) for i, member in enumerate(self.members)]
        return np.concatenate(parts, 1)

    def penalty(self) -> float:
        """What the ridge takes from the log-likelihood."""
        return 0.5 * self.ridge * sum(float((c**2).sum()) for c in (self.top, *self.members))

    def fit(self, x: Array, responsibilities: Array) -> None:
        """The M step: fit every softmax to the responsibilities ``[n, E]`` that reach it."""
        parts = np.split(responsibilities, np.cumsum(self.sizes)[:-1], axis=1)
        groups = np.stack([part.sum(1) for part in parts], 1)
        if len(self.sizes) > 1:
            self.top = fit_softmax(x, groups, np.ones(len(x)), self.top, self.ridge)
        for i, part in enumerate(parts):
            if self.sizes[i] > 1:
                inside = part / np.maximum(groups[:, [i]], np.finfo(float).tiny)
                self.members[i] = fit_softmax(x, inside, groups[:, i], self.members[i], self.ridge)
