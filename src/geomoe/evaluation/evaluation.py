"""What an evaluation finds of weights, whatever their task."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from geomoe.evaluation.precision import Loss
from geomoe.evaluation.scores import ItemScores, Scores
from geomoe.evaluation.statistics import Interval
from geomoe.models.precision import Precision

__all__ = ["Evaluation"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of weights beside those of a baseline, with what is needed to repeat it.

    Attributes:
        weights, hash: name of the model's weights, and what tells them from all others.
        task: family of the weights.
        data, sensor, gsd: what the samples are; the sensor and the ground sampling distance in metres are
            None where they are not known.
        scored: what was scored, in words.
        degradation: how inputs were made of the samples; empty where they are what they are.
        protocol: by which answers and truths were compared.
        precision: that the model computed in.
        loss: what that costs against float32, where it is another.
        ranks: the metric by which models are compared.
        base: what the baseline is called.
        overall: over all samples.
        interval: of ``ranks``, at 95 %: its bootstrap over samples; a large one counts for more where the
            metric is over pixels.
        by_class: of each class, how many samples and its metrics; empty where there are no classes.
        by_item: metrics of each sample, those whose mean, by size, is that of all; without samples that
            have no truth.
        sizes: how much each of them counts; empty where all count alike.
        noise: of the inputs, as :func:`geomoe.noise.image_noise` estimates it in units of [0, 1]: its
            quartiles over images; None where nobody looked, or no image tells.
    """

    weights: str
    hash: str
    task: str
    data: str
    sensor: str | None = None
    gsd: float | None = None
    scored: str
    degradation: str = ""
    protocol: str
    precision: Precision
    loss: Loss | None = None
    ranks: str
    base: str
    overall: Scores
    interval: Interval
    by_class: dict[str, Scores]
    by_item: ItemScores
    sizes: dict[str, float] = field(default_factory=dict)
    noise: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; gains included."""
        return {
            **{name: value for name, value in asdict(self).items() if name not in ("interval", "sizes")},
            "overall": self.overall.as_dict(self.ranks),
            "interval_95": self.interval.ends,
            "by_class": {name: of.as_dict(self.ranks) for name, of in self.by_class.items()},
        }
