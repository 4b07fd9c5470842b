"""Scores as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from geomoe.cli.say import say, say_table
from geomoe.evaluation.scores import Scores
from geomoe.metrics.measures import measure

if TYPE_CHECKING:
    from geomoe.evaluation.evaluation import Evaluation

__all__ = ["say_scores"]


def say_scores(found: Evaluation) -> None:
    """Say what was found over all samples, beside the baseline, and of each class."""
    ranks, how = measure(found.ranks), [f"{found.weights} on {found.scored}"]
    how += [f"input {found.degradation}"] if found.degradation else []
    how += [f"protocol {found.protocol}"] if found.protocol != found.task else []
    how += [found.precision] if found.precision != "float32" else []
    base = Scores(found.overall.items, found.overall.baseline, {}, {})
    say(", ".join(how))
    say_table(_table("", "samples", {found.base: base, "weights": found.overall}, found.ranks))
    of_others = ""
    if found.interval.ends is not None:  # of one sample nothing is known of others
        low, high = map(ranks.text, found.interval.ends)
        of_others = f"; {ranks.title} on other samples of the kind: {low} to {high} at 95 %"
    gain = ranks.text(found.overall.gain(found.ranks), sign=True)
    say(f"{ranks.title} {gain} over {found.base}{of_others}")
    for name, count in found.overall.defined.items():
        say(f"{measure(name).title} is defined on {count} of {found.overall.items} samples")
    if (loss := found.loss) is not None:
        cost, low, high = (f"{value:.4f} {ranks.unit}".rstrip() for value in (loss.loss, loss.low, loss.high))
        say(
            f"{found.precision} costs {cost} against float32 ({low} to {high} at 95 %); the largest "
            f"difference of a number is {loss.largest:.1f} of 255 levels"
        )
    if found.by_class:
        say_table(_table("class", "support", found.by_class, found.ranks))


def _table(head: str, items: str, rows: Mapping[str, Scores], ranks: str) -> Table:
    """A row for each, with so many items: metrics, and what is gained over a baseline where there is one."""
    metrics = list(dict.fromkeys(name for scores in rows.values() for name in scores.values))
    metrics.sort(key=lambda name: name != ranks)
    gain = [f"gain {measure(ranks).unit}".rstrip()] if all(of.baseline for of in rows.values()) else []
    titles = [f"{measure(name).title} {measure(name).unit}".rstrip() for name in metrics]
    table = Table(head, items, *titles, *gain, box=None)
    for name, scores in rows.items():
        cells = [_cell(scores.values, metric) for metric in metrics]
        gains = [f"{scores.gain(ranks):+.{measure(ranks).digits}f}"] if gain else []
        table.add_row(name, str(scores.items), *cells, *gains, style="bold" if name == "weights" else "")
    return table


def _cell(values: Mapping[str, float], metric: str) -> str:
    return f"{values[metric]:.{measure(metric).digits}f}" if metric in values else "-"
