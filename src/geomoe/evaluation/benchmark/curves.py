"""Pictures of a table: validation over the training of each arm, and scores over a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from geomoe.evaluation.benchmark.result import Result
from geomoe.files import atomic_write
from geomoe.metrics.measures import measure

if TYPE_CHECKING:
    from geomoe.evaluation.benchmark.table import Row
    from geomoe.evaluation.statistics import Ranking

__all__ = ["draw_curves", "draw_ranks", "draw_scaling", "mean_curve"]

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
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.5, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for i, (label, each) in enumerate(results.items()):
        curve = mean_curve(each)
        style = _STYLES[i // len(_COLOURS) % len(_STYLES)]
        steps, values = [step for step, _ in curve], [value for _, value in curve]
        marker = "o" if len(curve) < 2 else None
        axes.plot(steps, values, style, marker=marker, color=_COLOURS[i % len(_COLOURS)], label=label)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"validation {_named(metric)}")
    axes.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside right upper")
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def draw_scaling(path: Path, rows: Sequence[Row], metric: str) -> None:
    """Write a PNG of the scores of a sweep, with intervals: over its first option, and over operations.

    Args:
        path: of the file.
        rows: of a table; those that stand in a sweep, with costs, are drawn.
        metric: by which they are compared.

    Raises:
        ModuleNotFoundError: matplotlib is not there; it comes with the extra ``demo``.
    """
    from matplotlib.figure import Figure  # optional

    first, *others = dict.fromkeys(key for row in rows for key in row.at)

    def option(row: Row) -> float:
        return row.at.get(first, float("nan"))

    lines: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if row.at), key=lambda row: row.at.get(first, 0.0)):
        name = ", ".join(f"{key}={row.at[key]:g}" for key in others if key in row.at)
        lines.setdefault(name, []).append(row)
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for i, (name, some) in enumerate(sorted(lines.items())):
        by_cost = sorted((row for row in some if row.cost), key=_gmac)
        for axes, drawn, place in ((panels[0], some, option), (panels[1], by_cost, _gmac)):
            scores = [row.scores[metric] for row in drawn]
            axes.errorbar(
                [place(row) for row in drawn], [one.mean for one in scores], [one.half for one in scores],
                marker="osD^v"[i % 5], capsize=3, color=_COLOURS[i % len(_COLOURS)],
                linestyle=_STYLES[i % len(_STYLES)], label=name or None,
            )  # fmt: skip
            axes.grid(alpha=0.3)
    panels[0].set_xscale("log", base=2)
    panels[0].set_xlabel(first)
    panels[0].set_ylabel(_named(metric))
    panels[1].set_xlabel("GMAC of a tile")
    panels[1].xaxis.set_major_formatter("{x:.3g}")
    ticks = sorted({row.at[first] for row in rows if first in row.at})
    panels[0].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panels[0].minorticks_off()
    if len(lines) > 1:
        panels[0].legend(fontsize="small")
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def draw_ranks(path: Path, labels: Sequence[str], ranking: Ranking) -> None:
    """Write a critical-difference diagram (Demsar 2006) as PNG: arms by mean rank, bars over those that tie.

    Args:
        path: of the file.
        labels: of the arms, in the order of the ranking's.
        ranking: what is drawn.

    Raises:
        ModuleNotFoundError: matplotlib is not there; it comes with the extra ``demo``.
    """
    from matplotlib.figure import Figure  # optional

    order = sorted(range(len(labels)), key=ranking.ranks.__getitem__)
    groups = ranking.groups if ranking.p < ranking.level else [tuple(order)]
    half, top = -(-len(order) // 2), 1.2 + 0.3 * len(groups)
    # Many arms that tie have ranks near each other: the axis is of where they are.
    low = math.floor(min(ranking.ranks))
    high = max(math.ceil(max(ranking.ranks)), low + 1, math.ceil(low + ranking.critical))
    space = (high - low) / 50
    figure = Figure(figsize=(9, 0.4 * (half + top) + 0.7), dpi=120, layout="constrained")
    axes = figure.subplots()
    for place, arm in enumerate(order):
        left = place < half
        y = -top - (place if left else len(order) - 1 - place)
        x, rank = (low - space if left else high + space), ranking.ranks[arm]
        axes.plot([rank, rank, x], [0, y, y], color="#444444", linewidth=1)
        words = f"{labels[arm]}  {rank:.2f}" if left else f"{rank:.2f}  {labels[arm]}"
        axes.text(x, y, f" {words} ", ha="right" if left else "left", va="center", fontsize=9)
    for i, group in enumerate(groups):
        ends = [ranking.ranks[group[0]] - space / 5, ranking.ranks[group[-1]] + space / 5]
        axes.plot(ends, [-0.5 - 0.3 * i] * 2, color=_COLOURS[0], linewidth=4, solid_capstyle="butt")
    axes.plot([low, low + ranking.critical], [1, 1], color=_COLOURS[1], linewidth=2, marker="|", markersize=9)
    middle, words = low + ranking.critical / 2, f"critical difference {ranking.critical:.2f}"
    axes.text(middle, 1.25, words, ha="center", fontsize=9)
    axes.plot([low, high], [0, 0], color="black", linewidth=1.2)
    for tick in range(low, high + 1):
        axes.plot([tick, tick], [0, 0.2], color="black", linewidth=1.2)
        axes.text(tick, 0.3, str(tick), ha="center", va="bottom", fontsize=9)
    axes.set_ylim(-top - half, 2.2)
    axes.set_axis_off()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", bbox_inches="tight")


def _gmac(row: Row) -> float:
    return row.cost.gmac if row.cost else float("nan")


def _named(metric: str) -> str:
    return ", ".join(filter(None, (measure(metric).title, measure(metric).unit)))
