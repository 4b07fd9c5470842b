"""Scores: metrics of a model beside those of a baseline, by item and over many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from geomoe.metrics.measures import measure

__all__ = ["ItemScores", "Scores", "mean_scores", "rounded"]

ItemScores = dict[str, dict[str, float]]
"""Metrics by name, by item: an image, a sample. A metric that is not defined of an item is left out."""


@dataclass(frozen=True)
class Scores:
    """What was found of several items.

    Attributes:
        items: how many.
        values: metrics of the model; one that is defined of no item is left out.
        baseline: the same of the baseline.
        defined: of how many items a metric is defined, where that is not all.
    """

    items: int
    values: dict[str, float]
    baseline: dict[str, float]
    defined: dict[str, int]

    def gain(self, metric: str) -> float:
        """How much better the model is than the baseline, in the metric's unit."""
        return measure(metric).gain(self.values[metric], self.baseline[metric])

    def as_dict(self, ranks: str) -> dict[str, Any]:
        """For JSON; ``ranks`` is the metric whose gain is given, where there is a baseline."""
        found: dict[str, Any] = {"items": self.items, "scores": self.values}
        if self.baseline:
            found |= {"baseline": self.baseline, "gain": self.gain(ranks)}
        return {**found, "defined": self.defined} if self.defined else found


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """As a card holds them: one digit more than they are shown with."""
    return {name: round(value, measure(name).digits + 1) for name, value in scores.items()}


def mean_scores(names: Sequence[str], values: ItemScores, baseline: ItemScores) -> Scores:
    """Means over items of the metrics ``names``, each over those items of which it is defined for both."""
    pairs = {
        name: [
            (scores[name], baseline[item][name])
            for item, scores in values.items()
            if name in scores and name in baseline[item]
        ]
        for name in names
    }
    means = {name: tuple(map(fmean, zip(*found, strict=True))) for name, found in pairs.items() if found}
    return Scores(
        items=len(values),
        values={name: mean[0] for name, mean in means.items()},
        baseline={name: mean[1] for name, mean in means.items()},
        defined={name: len(found) for name, found in pairs.items() if len(found) < len(values)},
    )
