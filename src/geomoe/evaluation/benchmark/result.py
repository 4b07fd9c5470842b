"""What a finished run leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from geomoe.errors import GeomoeError
from geomoe.evaluation.scores import ItemScores, rounded
from geomoe.files import read_small, write_csv, write_text
from geomoe.metrics.measures import BASELINE_OF_0_1, METRICS_OF_0_1

__all__ = ["ALL", "Result", "join", "read_result", "write_json", "write_scores"]

ALL = "all"
"""What all test images together are called among them."""


@dataclass(frozen=True)
class Result:
    """Scores of one arm trained with one seed.

    Attributes:
        hash: of the run's configuration and data.
        arm, seed: of the run.
        steps: it was trained for.
        seconds: of training, interruptions left out and what they cost counted.
        scored: what was scored, in words.
        scores: of every test image by its path. Where there are several degradations, means over them.
        baseline: what needs no learning, over all test images, by metric.
        overall: metrics over all test images that are no means of theirs.
        sizes: how much each test image counts; empty where all count alike.
        curve: step, and the metric by which models are compared, in validation.
        weights: hash of the weights that were scored.
        commit: of the program that trained them.
        hardware: that trained them.
        config: of the run, resolved.
        by_degradation, baseline_by_degradation: scores by degradation and image, where there are several
            sources.
    """

    hash: str
    arm: str
    seed: int
    steps: int
    seconds: float
    scored: str
    scores: ItemScores
    baseline: dict[str, float]
    curve: list[tuple[int, float]]
    weights: str
    commit: str
    hardware: str
    config: dict[str, Any]
    overall: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    by_degradation: dict[str, ItemScores] = field(default_factory=dict)
    baseline_by_degradation: dict[str, ItemScores] = field(default_factory=dict)

    def of(self, metric: str) -> dict[str, float]:
        """One metric, by test image; of all as one, where it is none of single images."""
        if not all(metric in scores for scores in self.scores.values()):
            return {ALL: self.overall[metric]}
        return {item: scores[metric] for item, scores in self.scores.items()}

    def mean(self, metric: str) -> float:
        """One metric over all test images."""
        return self.overall[metric] if metric in self.overall else fmean(self.of(metric).values())


def read_result(path: Path) -> Result | None:
    """The result in a file, None where there is no file.

    Raises:
        GeomoeError: something else is in the file.
    """
    if not path.exists():
        return None
    try:
        found = _by_name(json.loads(read_small(path)))
        return Result(**{**found, "curve": [(step, value) for step, value in found["curve"]]})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GeomoeError(
            f"{path} is not the result of a run; remove it, and the run is scored again"
        ) from error


def _by_name(found: dict[str, Any]) -> dict[str, Any]:
    """A result with scores by name; version 0.1 had fields for each metric, of a model and its baseline."""
    first = METRICS_OF_0_1[0]
    if first not in found:
        return found
    ours, base = (
        {name: found.pop(f"{of}{name}") for name in METRICS_OF_0_1} for of in ("", f"{BASELINE_OF_0_1}_")
    )

    def named(field: str) -> dict[str, dict[str, dict[str, float]]]:
        by = found.pop(field, {})
        return {of: {item: {first: value} for item, value in scores.items()} for of, scores in by.items()}

    return {
        "scores": {item: {name: ours[name][item] for name in ours} for item in ours[first]},
        "baseline": base,
        "by_degradation": named("by_degradation"),
        "baseline_by_degradation": named(f"{BASELINE_OF_0_1}_by_degradation"),
        **found,
    }


def join(arm: str, parts: Sequence[Result]) -> Result:
    """Results of one seed on images that differ, such as those of a network for each sensor, as one.

    Args:
        arm: name of what they are parts of.
        parts: at least one.
    """
    if len(parts) == 1:
        return replace(parts[0], arm=arm)
    sizes = [len(part.scores) for part in parts]

    def mean(metric: str) -> float:
        return sum(n * part.baseline[metric] for n, part in zip(sizes, parts, strict=True)) / sum(sizes)

    def union(tables: Iterable[dict[str, ItemScores]]) -> dict[str, ItemScores]:
        joined: dict[str, ItemScores] = {}
        for table in tables:
            for degradation, values in table.items():
                joined.setdefault(degradation, {}).update(values)
        return joined

    return replace(
        parts[0],
        arm=arm,
        steps=sum(part.steps for part in parts),
        seconds=sum(part.seconds for part in parts),
        scores={image: scores for part in parts for image, scores in part.scores.items()},
        baseline={metric: mean(metric) for metric in parts[0].baseline},
        curve=[],
        by_degradation=union(part.by_degradation for part in parts),
        baseline_by_degradation=union(part.baseline_by_degradation for part in parts),
    )


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass or plain value; raises GeomoeError where it cannot be written."""
    text = json.dumps(value if isinstance(value, dict) else asdict(value), indent=1)
    write_text(path, f"{text}\n")


def write_scores(path: Path, results: Sequence[Result], twins: Mapping[str, tuple[str, str]]) -> None:
    """A line for every arm, seed, test image and metric, for tests of other people's making.

    ``twins`` has the kind of each arm that is a twin, as of
    :func:`geomoe.evaluation.benchmark.twins.twin_kind`, and the arm that it is one of.

    Metrics over all test images that are no means of theirs are those of an item :data:`ALL`.

    Raises:
        GeomoeError: it cannot be written.
    """
    rows = [
        [result.arm, result.seed, item, metric, value, *twins.get(result.arm, ("", ""))]
        for result in results
        for item, scores in result.scores.items()
        for metric, value in rounded(scores).items()
    ]
    rows += [
        [result.arm, result.seed, ALL, metric, value, *twins.get(result.arm, ("", ""))]
        for result in results
        for metric, value in rounded(result.overall).items()
    ]
    write_csv(path, [["arm", "seed", "item", "metric", "value", "twin", "of"], *rows])
