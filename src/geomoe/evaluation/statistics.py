"""Statistics of repeated runs: intervals that respect how scores hang together, and paired tests.

Scores of one image under several seeds are no independent samples, nor are scores of several images under one
seed: both are drawn anew in a bootstrap, so that an interval covers other images and other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from geomoe.errors import GeomoeError

__all__ = ["Interval", "bootstrap_mean", "holm", "wilcoxon"]

_CHUNK = 500
"""Replicates at once: their weights of a thousand images take 4 MB."""


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


def bootstrap_mean(
    scores: NDArray[np.float64], level: float = 0.95, replicates: int = 10_000, seed: int = 0
) -> Interval:
    """Mean over seeds and images, with a percentile interval by a bootstrap clustered by image.

    A replicate draws seeds with replacement and images with replacement; a drawn image comes with its scores
    under all drawn seeds (the pigeonhole bootstrap of crossed data, Owen 2007). Percentile intervals: Efron
    and Tibshirani 1993, chapter 13. With one seed the interval covers images alone;
    with two to five, which a bootstrap cannot spread as widely as those that were not run, it is too narrow
    where seeds differ more than chance among the images would make them: it then covers less than ``level``.

    Args:
        scores: ``[S, N]``, a row for each seed, a column for each image, or differences of such.
        level: of confidence, between 0 and 1.
        replicates: of the bootstrap.
        seed: of its draws.

    Raises:
        GeomoeError: no scores, or a level outside (0, 1).
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not scores.size:
        raise GeomoeError(f"scores {list(scores.shape)}: expected seeds x images, at least one of each")
    if not 0 < level < 1:
        raise GeomoeError(f"level={level}: expected a number between 0 and 1, such as 0.95")
    rng = np.random.default_rng(seed)
    seeds, images = scores.shape
    means: list[NDArray[np.float64]] = []
    for start in range(0, replicates, _CHUNK):
        size = min(_CHUNK, replicates - start)
        by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size) / seeds  # [R, S]
        by_image = rng.multinomial(images, np.full(images, 1 / images), size) / images  # [R, N]
        means.append(((by_seed @ scores) * by_image).sum(1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(scores.mean()), float(low), float(high))


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
