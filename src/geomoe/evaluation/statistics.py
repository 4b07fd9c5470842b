"""Statistics of repeated runs: intervals that respect how scores hang together, and paired tests.

Scores of one image under several seeds are no independent samples, nor are scores of several images under one
seed: an interval has to cover other images and other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from geomoe.errors import GeomoeError

__all__ = [
    "FEWEST_BLOCKS", "Interval", "Ranking", "agreement", "bootstrap_interval", "bounded_interval", "holm",
    "mean_interval", "paired_interval", "rank_arms", "wilcoxon",
]  # fmt: skip

FEWEST_BLOCKS = 10
"""That :func:`rank_arms` wants: of fewer its distribution is not known well enough (Demsar 2006, 3.2.2)."""

_ADDED = 0.75
"""Of a sample, to each outcome of two scores that are right or wrong."""
_NEUTRAL = 1 / 3
"""Of a sample, at each bound of what has bounds."""
_DRAWS = 4000


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its confidence interval, in the units of the scores."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width, for the form ``mean ± half``."""
        return (self.high - self.low) / 2

    @property
    def ends(self) -> list[float] | None:
        """For JSON, which knows no nan: low and high, or ``None`` where nothing is known of them."""
        return None if np.isnan(self.low) else [self.low, self.high]


def mean_interval(
    scores: NDArray[np.float64], level: float = 0.95, sizes: NDArray[np.float64] | None = None
) -> Interval:
    """Mean over seeds and images, with an interval that covers other seeds and other images.

    Seeds and images are crossed samples: the variance of the mean is that of the seeds' means over S, plus
    that of the images' means over N (which counts their interaction twice and so errs on the wide side). The
    quantile is Student's, by Welch's and Satterthwaite's degrees of freedom, between S - 1 where seeds decide
    and N - 1 where images do. A bootstrap of two or three seeds would be far too narrow.
    With one seed the interval covers images alone, with one image seeds alone, with one score nothing.
    Scores that are right or wrong, 1 or 0, have little spread where nearly all are right: four images more
    are counted, two of them right, for the interval alone (after Agresti and Coull 1998).

    Args:
        scores: ``[S, N]``, a row for each seed, a column for each image, or differences of such.
        level: of confidence, between 0 and 1.
        sizes: ``[N]``, above 0: how much each image counts in the mean; all alike if not given.

    Raises:
        GeomoeError: no scores, or a level outside (0, 1).
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not scores.size:
        raise GeomoeError(f"scores {list(scores.shape)}: expected seeds x images, at least one of each")
    if not 0 < level < 1:
        raise GeomoeError(f"level={level}: expected a number between 0 and 1, such as 0.95")
    mean = float(np.average(scores, 1, sizes).mean())
    if sizes is None and scores.shape[1] > 1 and scores.any() and np.isin(scores, (0.0, 1.0)).all():
        more = np.tile([0.0, 1.0, 0.0, 1.0], (len(scores), 1))
        return replace(_crossed(np.concatenate([scores, more], 1), level, None), mean=mean)
    return _crossed(scores, level, sizes)


def _crossed(scores: NDArray[np.float64], level: float, sizes: NDArray[np.float64] | None) -> Interval:
    seeds, images = scores.shape
    weights = np.ones(images) / images if sizes is None else sizes / sizes.sum()
    by_seed, by_image = np.average(scores, 1, sizes), scores.mean(0)
    mean = float(by_seed.mean())
    # Of the means over either: each one's share of the variance, and its degrees of freedom.
    parts = []
    if seeds > 1:
        parts.append((float(by_seed.var(ddof=1)) / seeds, seeds - 1))
    if images > 1:
        spread = float(((weights * (by_image - mean)) ** 2).sum()) * images / (images - 1)
        parts.append((spread, images - 1))
    variance = sum(part for part, _ in parts)
    if not variance:
        return Interval(mean, mean, mean)
    freedom = variance**2 / sum(part**2 / least for part, least in parts)
    half = float(stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance))
    return Interval(mean, mean - half, mean + half)


def bootstrap_interval(
    scores: NDArray[np.float64],
    level: float = 0.95,
    draws: int = _DRAWS,
    sizes: NDArray[np.float64] | None = None,
) -> Interval:
    """Mean over images, with the percentile interval of its bootstrap (Efron 1979); always the same draws.

    It covers other images of the kind, of one trained model. Of one image nothing is known: the ends are nan.
    Percentiles are taken as far out as Student's quantile is beyond the normal one, for those of few images
    are too near (Hesterberg 2015, section 3.3). Of images that are right or wrong, 1 or 0, and count alike
    it is Wilson's interval (1927): where nearly all are right, a bootstrap draws what it has seen.

    Args:
        scores: ``[N]``, one for each image, or differences.
        level: of confidence, between 0 and 1.
        draws: of N images with replacement.
        sizes: ``[N]``, above 0: how much each image counts in the mean; all alike if not given.

    Raises:
        GeomoeError: no scores.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise GeomoeError(f"scores {list(scores.shape)}: expected one for each of at least one image")
    mean = float(np.average(scores, weights=sizes))
    if len(scores) == 1:
        return Interval(mean, np.nan, np.nan)
    if sizes is None or len(set(np.asarray(sizes).tolist())) == 1:
        sizes = None
        if scores.any() and np.isin(scores, (0.0, 1.0)).all():  # no differences at all are no wrong answers
            wilson = stats.binomtest(int(scores.sum()), len(scores)).proportion_ci(level, "wilson")
            return Interval(mean, float(wilson.low), float(wilson.high))
    rng = np.random.default_rng(0)
    drawn = (rng.integers(len(scores), size=len(scores)) for _ in range(draws))
    means = [np.average(scores[i], weights=None if sizes is None else sizes[i]) for i in drawn]
    far = np.sqrt(len(scores) / (len(scores) - 1)) * stats.t.ppf((1 + level) / 2, len(scores) - 1)
    low, high = np.quantile(means, stats.norm.cdf([-far, far]))
    return Interval(mean, float(low), float(high))


def bounded_interval(
    values: NDArray[np.float64],
    sizes: NDArray[np.float64] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Mean of what lies between bounds, such as shares of samples or blocks, and its 95 % interval in them.

    Where nearly all are at a bound, the few that are not decide the mean, and samples may hold none of them:
    Student's interval would have no width then. So it is the Bayesian bootstrap (Rubin 1981) with a third of
    a sample more at each bound. Of what is right or wrong that is the interval of a share with Kerman's
    neutral prior (2011), Beta(1/3, 1/3); of all right or all wrong it begins at that bound. Always the same
    draws. Of one sample nothing is known: the ends are nan.

    Args:
        values: ``[N]``, one for each sample or block.
        sizes: ``[N]``, above 0: how much each counts in the mean, such as its pixels; all alike if not given.
        bounds: least and greatest value that there can be.

    Raises:
        GeomoeError: no values.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size:
        raise GeomoeError(f"values {list(x.shape)}: expected one for each of at least one sample")
    number, size = len(x), np.ones(len(x)) if sizes is None else np.asarray(sizes, dtype=np.float64)
    mean = float(np.average(x, weights=size))
    if number == 1:
        return Interval(mean, np.nan, np.nan)
    counts = np.append(np.ones(number), [_NEUTRAL, _NEUTRAL])
    drawn = np.random.default_rng(0).standard_gamma(counts, (_DRAWS, number + 2))
    drawn *= np.append(size, [size.mean()] * 2)
    means = drawn @ np.append(x, bounds) / drawn.sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(mean, min(float(low), mean), max(float(high), mean))


def paired_interval(
    differences: NDArray[np.float64], level: float = 0.95, sizes: NDArray[np.float64] | None = None
) -> Interval:
    """Mean of paired differences of samples, or of blocks, with an interval that covers others of the kind.

    The mean is weighted by size, so a ratio of two sums; its variance is that of the linearised ratio, by
    Student's t with N - 1 degrees of freedom. Scores that are right or wrong, one each, differ by -1, 0 or 1:
    there a part of a sample of each of the four outcomes is added (after Agresti and Min 2005, who take half
    of one; with three quarters it covers also where two in a hundred differ), so that the interval has a
    width where none does, of whatever sizes. Of one sample nothing is known: the ends are nan.

    Args:
        differences: ``[N]``, one for each sample or block.
        level: of confidence, between 0 and 1.
        sizes: ``[N]``, above 0: how much each counts in the mean, such as its pixels; all alike if not given.

    Raises:
        GeomoeError: no differences.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not d.size:
        raise GeomoeError(f"differences {list(d.shape)}: expected one for each of at least one sample")
    number = len(d)
    weights = np.full(number, 1 / number) if sizes is None else sizes / np.sum(sizes)
    mean = float(weights @ d)
    if number == 1:
        return Interval(mean, np.nan, np.nan)
    alike = np.allclose(weights, 1 / number)
    if not d.any() or (alike and np.isin(d, (-1.0, 0.0, 1.0)).all()):
        larger = number + 4 * _ADDED
        middle, changed = d.sum() / larger, (np.abs(d).sum() + 2 * _ADDED) / larger
        half = float(stats.norm.ppf((1 + level) / 2) * np.sqrt((changed - middle**2) / larger))
        return Interval(mean, float(max(middle - half, -1)), float(min(middle + half, 1)))
    variance = float(((weights * (d - mean)) ** 2).sum()) * number / (number - 1)
    half = float(stats.t.ppf((1 + level) / 2, number - 1) * np.sqrt(variance))
    return Interval(mean, mean - half, mean + half)


def wilcoxon(differences: NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that paired differences are symmetric about 0.

    Args:
        differences: ``[N]``, one for each image, means over seeds; zeros are left out. 1 where all are 0.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences[differences != 0]).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down rule (1979), in the order given.

    The i-th smallest of m is multiplied by ``m - i + 1``; none falls below a smaller one's, none exceeds 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p)
    least = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = least
    return corrected


@dataclass(frozen=True)
class Ranking:
    """Arms by their mean ranks over blocks.

    Attributes:
        ranks: mean rank of each arm, 1 for the best; arms that tie in a block share their ranks.
        blocks: over how many.
        p: of Friedman's test that all arms are alike.
        critical: difference of two mean ranks from which Nemenyi's test calls two arms different.
        level: of Nemenyi's test, for all pairs together.
    """

    ranks: tuple[float, ...]
    blocks: int
    p: float
    critical: float
    level: float

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """Arms, best first, of which no two are shown to differ; none that is part of another group."""
        order = sorted(range(len(self.ranks)), key=self.ranks.__getitem__)
        found: list[tuple[int, ...]] = []
        for i, first in enumerate(order):
            near = [j for j in order[i:] if self.ranks[j] - self.ranks[first] < self.critical]
            if len(near) > 1 and not (found and set(near) <= set(found[-1])):
                found.append(tuple(near))
        return found


@cache
def _studentized(level: float, arms: int) -> float:
    """Quantile of the studentized range of so many arms, with infinite degrees of freedom."""
    return float(stats.studentized_range.ppf(level, arms, np.inf))


def rank_arms(scores: NDArray[np.float64], level: float = 0.05) -> Ranking | None:
    """Friedman's test by Iman and Davenport's F (1980), and Nemenyi's critical difference (Demsar 2006).

    Args:
        scores: ``[B, K]``, a row for each block (an image, a seed), a column for each arm; more is better.
        level: of Nemenyi's test.

    Returns:
        None for fewer than three arms, or than :data:`FEWEST_BLOCKS`.
    """
    blocks, arms = scores.shape
    if arms < 3 or blocks < FEWEST_BLOCKS:
        return None
    ranks = stats.rankdata(-scores, axis=1)
    critical = _studentized(1 - level, arms) * np.sqrt(arms * (arms + 1) / (12 * blocks))
    p = 1.0
    if np.ptp(scores, axis=1).any():  # else all tie everywhere
        square = float(stats.friedmanchisquare(*scores.T).statistic)  # with ties corrected for
        left = blocks * (arms - 1) - square
        ratio = np.inf if left <= 0 else (blocks - 1) * square / left
        p = float(stats.f.sf(ratio, arms - 1, (arms - 1) * (blocks - 1)))
    return Ranking(tuple(ranks.mean(0).tolist()), blocks, p, float(critical), level)


def agreement(scores: NDArray[np.float64]) -> float:
    """How far several judges put things in one order: Kendall's tau-b, its mean over pairs of judges.

    Args:
        scores: ``[J, K]``, a row for each judge (a seed, a paper), a column for each of the things; both at
            least 2.

    Returns:
        1 for one order, -1 for two that are each other's reverse, about 0 where chance decides; 0 too where a
        judge holds all for equal.
    """
    pairs = [stats.kendalltau(one, other).statistic for one, other in combinations(scores, 2)]
    return fmean(0.0 if np.isnan(tau) else float(tau) for tau in pairs)
