"""Validation over the training of each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from geomoe.evaluation.benchmark.result import Result
from geomoe.files import atomic_write
from geomoe.metrics.measures import measure

__all__ = ["draw_curves", "mean_curve"]

# Okabe and Ito's colours: people with any of the common colour deficiencies tell them apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":")


def mean_curve(results: Sequence[Result]) -> list[tuple[int, float]]:
    """Step and score, a mean over seeds, at steps that all of them validated."""
    curves = [dict(result.curve) for result in results]
    steps = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    return [(step, fmean(curve[step] for curve in curves)) for step in sorted(steps)]


def draw_curves(path: Path, results: Mapping[str, Sequence[Result]], metric: str) -> None:
    """Write a PNG with a line for each arm, by its label; ``metric`` is what was validated by.

    Raises:
        ModuleNotFoundError: matplotlib is not there; it comes with the extra ``demo``.
    """
    from matplotlib.figure import Figure  # optional

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for i, (label, each) in enumerate(results.items()):
        curve = mean_curve(each)
        style = _STYLES[i // len(_COLOURS) % len(_STYLES)]
        steps, values = [step for step, _ in curve], [value for _, value in curve]
        marker = "o" if len(curve) < 2 else None
        axes.plot(steps, values, style, marker=marker, color=_COLOURS[i % len(_COLOURS)], label=label)
    axes.set_xlabel("step")
    axes.set_ylabel(", ".join(filter(None, (f"validation {measure(metric).title}", measure(metric).unit))))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
