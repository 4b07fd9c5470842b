"""Scores by sensor and by source: where one arm is better than another, and on what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from geomoe.evaluation.benchmark.config import Benchmark
from geomoe.evaluation.benchmark.result import Result
from geomoe.evaluation.scores import ItemScores
from geomoe.evaluation.statistics import Interval, mean_interval

__all__ = ["Cell", "Group", "Values", "apart", "make_groups", "of", "paired", "scores", "sizes"]

Values = Callable[[Result], Mapping[str, float]]
"""What is asked of a result, by image."""


@dataclass(frozen=True)
class Cell:
    """One arm on one group.

    Attributes:
        score: mean over seeds and images, of the metric by which arms are compared.
        difference: the score less that of the arm that it is tested against, paired by seed and image;
            None as in a row.
    """

    score: Interval
    difference: Interval | None


@dataclass(frozen=True)
class Group:
    """The images of one sensor or source, downsampled in one way.

    Attributes:
        name: of the sensor or source.
        degradation: of the inputs.
        images: how many, or tiles of large ones.
        baseline: score of what needs no learning.
        cells: by arm, in the order of the table.
    """

    name: str
    degradation: str
    images: int
    baseline: float
    cells: dict[str, Cell]


def sizes(results: Sequence[Result], metric: str) -> NDArray[np.float64] | None:
    """``[N]``, how much each image counts, in the order of :func:`scores`; None where all count alike.

    None too where seeds have images :func:`apart`, of which :func:`scores` gives one for all.
    """
    if apart(results):
        return None
    items, counts = results[0].of(metric), results[0].sizes
    alike = not counts or set(items) != set(counts) or len(set(counts.values())) == 1
    return None if alike else np.array([counts[item] for item in sorted(items)])


def of(metric: str) -> Values:
    """One metric, by image."""
    return lambda result: result.of(metric)


def apart(results: Sequence[Result]) -> bool:
    """Whether seeds were tested on images, or parts of images, of their own, as where each splits anew."""
    first = results[0]
    return any(one.scores.keys() != first.scores.keys() or one.sizes != first.sizes for one in results)


def scores(results: Sequence[Result], seeds: Sequence[int], values: Values) -> NDArray[np.float64]:
    """``[S, N]``, images in the order of their names; ``[S, 1]``, the mean of each seed, where apart."""
    by_seed = {result.seed: result for result in results}
    chosen = [by_seed[seed] for seed in seeds]
    found = [values(result) for result in chosen]
    if chosen and apart(chosen):
        means = []
        for one, of in zip(chosen, found, strict=True):
            weights = [one.sizes.get(image, 1.0) for image in of]
            means.append(np.average([*of.values()], weights=weights))
        return np.array(means)[:, None]
    return np.array([[of[image] for image in sorted(of)] for of in found])


def paired(mine: Sequence[Result], theirs: Sequence[Result], values: Values) -> NDArray[np.float64] | None:
    """Differences ``[S, N]`` under the seeds that both have; None where there is none."""
    seeds = sorted({result.seed for result in mine} & {result.seed for result in theirs})
    return scores(mine, seeds, values) - scores(theirs, seeds, values) if seeds else None


def make_groups(benchmark: Benchmark, results: Mapping[str, Sequence[Result]]) -> tuple[Group, ...]:
    """Sensors, then sources, under every degradation; nothing where there are no sources.

    Args:
        benchmark: what was compared.
        results: of each arm with any.
    """
    groups = []
    for name, sources in _named(benchmark):
        for degradation in benchmark.degradations:

            def values(
                result: Result, of: str = degradation, sources: frozenset[str] = sources
            ) -> dict[str, float]:
                return _of(sources, result.by_degradation[of], benchmark.ranks)

            any_result = next(iter(results.values()))[0]
            base = _of(sources, any_result.baseline_by_degradation[degradation], benchmark.ranks)
            if base:
                cells = {arm: _cell(benchmark, arm, results, values) for arm in results}
                groups.append(Group(name, degradation, len(base), fmean(base.values()), cells))
    return tuple(groups)


def _named(benchmark: Benchmark) -> Iterator[tuple[str, frozenset[str]]]:
    """Groups of sources by name: those of each sensor, if it has several, then each source."""
    listed = () if benchmark.sources is None else benchmark.sources.sources
    for sensor in dict.fromkeys(source.sensor for source in listed if source.sensor):
        of = frozenset(source.name for source in listed if source.sensor == sensor)
        yield f"all {sensor}", of
    for source in listed:
        yield source.name, frozenset([source.name])


def _of(sources: frozenset[str], scores: ItemScores, metric: str) -> dict[str, float]:
    return {item: of[metric] for item, of in scores.items() if item.partition(": ")[0] in sources}


def _cell(benchmark: Benchmark, arm: str, results: Mapping[str, Sequence[Result]], values: Values) -> Cell:
    mine = results[arm]
    seeds = sorted(result.seed for result in mine)
    found = None
    rival = benchmark.rival(benchmark.arm(arm)).name
    if arm != rival:
        found = paired(mine, results.get(rival, ()), values)
    score = mean_interval(scores(mine, seeds, values))
    return Cell(score, None if found is None else mean_interval(found))
