"""Scores as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from geomoe.metrics.measures import measure

if TYPE_CHECKING:
    from geomoe.evaluation.scores import Scores

__all__ = ["score_table"]


def score_table(
    title: str,
    rows: Mapping[str, Scores],
    metrics: Sequence[str],
    base: str = "",
    ranks: str | None = None,
    items: str = "images",
    bold: str = "all",
) -> Table:
    """A row for each class: metrics, those of the baseline, and a gain.

    Args:
        title: above the table.
        rows: by name.
        metrics: columns.
        base: what the baseline is called; none where it is empty.
        ranks: the metric whose gain is shown, if any.
        items: what was scored.
        bold: name of a row that stands out.
    """
    titles = [f"{measure(name).title} {measure(name).unit}".rstrip() for name in metrics]
    others = [f"{base} {titles[0]}", *titles[1:]] if base else []
    gain = [] if ranks is None else [f"gain {measure(ranks).unit}".rstrip()]
    table = Table("class", items, *titles, *others, *gain, title=title, box=None)
    for name, scores in rows.items():
        told = [scores.values, scores.baseline] if base else [scores.values]
        cells = [_cell(values, metric) for values in told for metric in metrics]
        gains = [] if ranks is None else [f"{scores.gain(ranks):+.{measure(ranks).digits}f}"]
        table.add_row(name, str(scores.items), *cells, *gains, style="bold" if name == bold else "")
    return table


def _cell(values: Mapping[str, float], metric: str) -> str:
    return f"{values[metric]:.{measure(metric).digits}f}" if metric in values else "-"
