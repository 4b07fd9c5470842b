"""What the arms of a benchmark are trained and scored on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from geomoe.evaluation.benchmark.config import Arm
from geomoe.evaluation.scores import ItemScores
from geomoe.models import LoadedModel

__all__ = ["Images", "Scored"]


@dataclass(frozen=True)
class Scored:
    """Scores of one model.

    Attributes:
        scored: what was scored, in words.
        scores: by test image. Where there are several degradations, means over them.
        baseline: what needs no learning, over all of them, by metric.
        overall: metrics over all of them that are no means of theirs.
        sizes: how much each of them counts; empty where all count alike.
        by_degradation: scores by degradation and image, where there are several sources.
        baseline_by_degradation: those of the baseline.
    """

    scored: str
    scores: ItemScores
    baseline: dict[str, float]
    overall: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    by_degradation: dict[str, ItemScores] = field(default_factory=dict)
    baseline_by_degradation: dict[str, ItemScores] = field(default_factory=dict)


class Images(Protocol):
    """Images to train on and to score."""

    @property
    def digest(self) -> str:
        """Of names and sizes of all files, so that other images are not taken for the same."""

    def fit_options(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Of section ``data`` of ``geomoe fit``."""

    def model(self, arm: Arm) -> nn.Module:
        """The network of ``arm``, without memory."""

    def score(self, model: LoadedModel, arm: Arm, device: str) -> Scored:
        """Scores of a model of ``arm`` on the test images."""

    def fit_and_score(self, arm: Arm, seed: int) -> Scored:
        """Those of an estimator, which learns first."""

    def tile(self) -> Tensor:
        """The middle of the first test image, downsampled: ``[1, bands, 64, 64]``; mirrored if smaller."""
