"""What metrics are called, in what unit they are written, and which end of them is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["BASELINE_OF_0_1", "MEASURES", "METRICS_OF_0_1", "Measure", "measure", "show"]


@dataclass(frozen=True)
class Measure:
    """How a metric is read.

    Attributes:
        title: for people.
        unit: of its values; may be empty.
        digits: behind the point.
        best: whether more is better (``max``) or less (``min``).
    """

    title: str
    unit: str = ""
    digits: int = 4
    best: Literal["max", "min"] = "max"

    def text(self, value: float, sign: bool = False) -> str:
        """``30.123 dB``; with its sign where that is asked for."""
        number = f"{value:+.{self.digits}f}" if sign else f"{value:.{self.digits}f}"
        return f"{number} {self.unit}".rstrip()

    def gain(self, value: float, base: float) -> float:
        """How much better ``value`` is than ``base``; negative where it is worse."""
        return value - base if self.best == "max" else base - value


MEASURES: dict[str, Measure] = {
    "psnr": Measure("PSNR", "dB", 3),
    "ssim": Measure("SSIM"),
    "ergas": Measure("ERGAS", digits=3, best="min"),
    "sam": Measure("SAM", "°", 3, "min"),
    "scc": Measure("SCC", digits=3),
    "consistency": Measure("consistency", "dB", 3),
    "accuracy": Measure("accuracy"),
    "oa": Measure("OA"),
    "aa": Measure("AA"),
    "f1": Measure("F1"),
    "kappa": Measure("kappa"),
    "iou": Measure("IoU"),
    "miou": Measure("mIoU"),
    "mf1": Measure("mF1"),
    "boundary_f": Measure("boundary F"),
    "pq": Measure("PQ"),
    "sq": Measure("SQ"),
    "rq": Measure("RQ"),
    "pq_things": Measure("PQ of things"),
    "sq_things": Measure("SQ of things"),
    "rq_things": Measure("RQ of things"),
    "pq_stuff": Measure("PQ of stuff"),
    "sq_stuff": Measure("SQ of stuff"),
    "rq_stuff": Measure("RQ of stuff"),
    "many": Measure("AA of frequent classes"),
    "medium": Measure("AA of medium classes"),
    "few": Measure("AA of rare classes"),
    "ece": Measure("ECE", best="min"),
    "mse": Measure("MSE", best="min"),
}
"""Metrics by the names that scores have them under."""

METRICS_OF_0_1, BASELINE_OF_0_1 = ("psnr", "ssim"), "bicubic"
"""What files of version 0.1 name, which scored one task by two metrics, beside one baseline."""


def measure(name: str) -> Measure:
    """Of a metric by name; of one that nobody described its name, more being better."""
    return MEASURES.get(name, Measure(name))


def show(scores: Mapping[str, float]) -> str:
    """``PSNR 30.123 dB, SSIM 0.9000``."""
    return ", ".join(f"{measure(name).title} {measure(name).text(value)}" for name, value in scores.items())
