"""What weights were measured on, as their card holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from geomoe.metrics.measures import BASELINE_OF_0_1, METRICS_OF_0_1, measure

__all__ = ["Measured"]

_TEXTS = ("data", "degradation", "protocol", "date", "commit", "ranks")
_DIGITS = 4


@dataclass(frozen=True)
class Measured:
    """One evaluation of weights, on images of one kind.

    Attributes:
        data: what images, in words.
        sensor: that took them, by the names of :mod:`geomoe.raster.read.sensor`; ``None`` if not known.
        gsd: their ground sampling distance in metres, which is the results'; the inputs' is ``scale`` times
            as long. ``None`` where it is not known.
        degradation: how the inputs were made.
        noise: standard deviation of the inputs' noise, as it is estimated of scenes, in units of [0, 1]: its
            quartiles over the images. ``None`` where no image tells.
        protocol: of the scores.
        images: how many.
        scores: means over them, by the metrics' names.
        baseline: the same of what needs no learning, such as the largest class.
        date: ISO date.
        commit: of the repository; empty outside of one.
        ranks: the metric by which weights are compared.
    """

    data: str
    sensor: str | None
    gsd: float | None
    degradation: str
    noise: tuple[float, float] | None
    protocol: str
    images: int
    scores: dict[str, float]
    baseline: dict[str, float]
    date: str
    commit: str = ""
    ranks: str = field(kw_only=True)

    @property
    def gain(self) -> float:
        """How much better than the baseline, in the unit of ``ranks``."""
        return round(measure(self.ranks).gain(self.scores[self.ranks], self.baseline[self.ranks]), _DIGITS)

    @classmethod
    def from_card(cls, held: Mapping[str, Any]) -> Measured:
        """From JSON values, also of version 0.1.

        Raises:
            ValueError: values that are missing, of another type or not finite.
        """
        try:
            held = _by_name(held)
            found = cls(**{**held, "noise": held["noise"] and tuple(map(float, held["noise"]))})
            scores = (*found.scores.values(), *found.baseline.values(), found.gain)
            numbers = (*scores, found.gsd or 1.0, *(found.noise or ()))
            fine = (
                all(isinstance(text, str) for text in (*map(found.__getattribute__, _TEXTS), *found.scores))
                and isinstance(found.sensor, str | None)
                and isinstance(found.images, int)
                and all(map(math.isfinite, numbers))
                and (found.gsd is None or found.gsd > 0)
                and (found.noise is None or len(found.noise) == 2)
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"what its card says was measured is damaged: {error}") from error
        if not fine:
            raise ValueError(f"what its card says was measured on {str(found.data)[:40]!r} is damaged")
        return found

    def for_card(self) -> dict[str, Any]:
        """JSON values."""
        held = asdict(self)
        return {**held, "noise": None if self.noise is None else list(self.noise)}

    def same_case(self, other: Measured) -> bool:
        """Whether both are of the same images, inputs and protocol, so that gains can be compared."""
        return (self.data, self.degradation, self.protocol) == (other.data, other.degradation, other.protocol)

    def describe(self) -> str:
        """On what, in words."""
        of = [self.sensor, None if self.gsd is None else f"{self.gsd:g} m"]
        known = ", ".join(filter(None, of))
        made = f", {self.degradation}" if self.degradation else ""
        return f"{self.data}{f' ({known})' if known else ''}{made}"


def _by_name(held: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says, with scores by name; version 0.1 knew one metric, and its gain over a baseline."""
    first = METRICS_OF_0_1[0]
    if "gain" not in held:
        return {"ranks": first, **held}
    rest = dict(held)
    gain, base = rest.pop("gain"), rest.pop(BASELINE_OF_0_1)
    return {"ranks": first, **rest, "scores": {first: round(base + gain, _DIGITS)}, "baseline": {first: base}}
