"""Scores that say what not to trust: how well they tell, where to draw the line, what leaving out brings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from geomoe.evaluation.statistics import Interval

__all__ = [
    "aurc",
    "auroc",
    "chance_of_alarms",
    "difference_of_areas",
    "risk_by_coverage",
    "threshold_of",
]

_DRAWS = 500
_TELLING = 12


def auroc(clean: NDArray[np.float64], strange: NDArray[np.float64]) -> Interval:
    """Probability that a strange one has the higher score than a clean one, ties half (Mann and Whitney).

    The interval is Wilson's (1927), at 95 %, of as many samples as a share with this variance would have
    (Korn and Graubard 1998), Student's quantile in it. The variance is that of the structural components
    (DeLong et al. 1988) of pairs, for each strange one was made of a clean one. Where all are told, or none,
    they do not vary, and n comparisons count that are right or wrong: the interval has a width there, too.
    Of one sample nothing is known: the ends are nan.

    Args:
        clean: ``[n]`` scores.
        strange: ``[n]``, of what became of the same samples.
    """
    n = len(clean)
    ranks = stats.rankdata(np.concatenate([strange, clean]))
    above = (ranks[:n] - stats.rankdata(strange)) / n  # of each strange one the share of clean ones below
    below = 1 - (ranks[n:] - stats.rankdata(clean)) / n
    area = float(above.mean())
    if n == 1:
        return Interval(area, np.nan, np.nan)
    spread = float((above + below).var(ddof=1)) / n
    number = area * (1 - area) / spread if spread > 1e-12 else n
    z = stats.t.ppf(0.975, n - 1) ** 2 / number
    middle, half = area + z / 2, np.sqrt(z * area * (1 - area) + z**2 / 4)
    return Interval(area, float((middle - half) / (1 + z)), float((middle + half) / (1 + z)))


def threshold_of(scores: NDArray[np.float64], rate: float) -> float:
    """The score that ``rate`` of others like these exceed at most: the quantile of n + 1 (Vovk et al. 2005).

    The largest of them where they are too few for the rate.
    """
    return float(np.sort(scores)[_place(len(scores), rate) - 1])


def _place(number: int, rate: float) -> int:
    return min(int(np.ceil((number + 1) * (1 - rate))), number)


def chance_of_alarms(alarms: int, tried: int, limits: int, rate: float) -> float:
    """Probability of ``alarms`` or more above :func:`threshold_of`, where all scores are of one kind.

    Exact, and of the threshold's chance as well as of the alarms': how many of m scores exceed the k-th of n
    others is beta-binomial, whatever they are distributed by.

    Args:
        alarms: scores above the threshold.
        tried: scores that were compared with it.
        limits: scores that it was found from.
        rate: that it was found for.
    """
    place = _place(limits, rate)
    return float(stats.betabinom.sf(alarms - 1, tried, limits + 1 - place, place))


def risk_by_coverage(scores: NDArray[np.float64], risks: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[n]`` mean risk of the 1, 2, .. n samples of least score; of equal ones what any order gives."""
    order = np.argsort(scores, kind="stable")
    _, group, counts = np.unique(scores[order], return_inverse=True, return_counts=True)
    expected = np.bincount(group, risks[order]) / counts
    return np.asarray(np.cumsum(expected[group]) / np.arange(1, len(scores) + 1))


def aurc(scores: NDArray[np.float64], risks: NDArray[np.float64]) -> float:
    """Area under the risk-coverage curve, its mean; less is better (Geifman et al. 2019)."""
    return float(risk_by_coverage(scores, risks).mean())


def difference_of_areas(
    scores: NDArray[np.float64], other: NDArray[np.float64] | None, risks: NDArray[np.float64], seed: int = 0
) -> tuple[float, float] | None:
    """Ends of the 95 % interval of :func:`aurc` by ``scores``, less that by ``other`` or by any order.

    The bootstrap's percentiles over samples, as far out as Student's quantile is beyond the normal one. Where
    risks are right or wrong, the rarer of both are what tells: they count for the quantile, and of fewer than
    12 no interval is given, for it would cover too seldom.

    Args:
        scores: ``[n]``, higher where a sample is more suspicious.
        other: ``[n]``; None for the mean risk, which any order has.
        risks: ``[n]``.
        seed: of the draws.
    """
    number = len(risks)
    if np.isin(risks, (0.0, 1.0)).all():
        number = int(min(risks.sum(), number - risks.sum()))
    if number < _TELLING:
        return None
    drawn = np.random.default_rng(seed).integers(len(risks), size=(_DRAWS, len(risks)))
    less = [
        aurc(scores[i], risks[i]) - (risks[i].mean() if other is None else aurc(other[i], risks[i]))
        for i in drawn
    ]
    far = np.sqrt(number / (number - 1)) * stats.t.ppf(0.975, number - 1)
    low, high = np.quantile(less, stats.norm.cdf([-far, far]))
    return float(low), float(high)
