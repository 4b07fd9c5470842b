"""``geomoe evaluate`` of weights that see whole samples: their task's metrics, as tables and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from geomoe.cli.progress import told
from geomoe.cli.say import say, say_table
from geomoe.files import write_text
from geomoe.metrics.measures import measure

if TYPE_CHECKING:
    from geomoe.data.ucmerced import Split
    from geomoe.evaluation.samples import SampleEvaluation
    from geomoe.models import LoadedModel
    from geomoe.models.precision import Precision

__all__ = ["print_samples"]


def print_samples(
    model: LoadedModel,
    root: Path,
    *,
    split: Split,
    device: str,
    precision: Precision,
    skip_corrupt: bool,
    out: Path | None,
) -> None:
    """Score a model on the samples of a folder, and print or write what was found."""
    from geomoe.evaluation.samples import evaluate_samples

    with told("samples") as progress:
        found = evaluate_samples(
            model, root, split=split, device=device, precision=precision, skip_corrupt=skip_corrupt,
            progress=progress, say=lambda line: say(f"geomoe: note: {line}", err=True),
        )  # fmt: skip
    text = json.dumps(found.as_dict(), indent=2)
    if str(out) == "-":
        say(*text.split("\n"))
        return
    _print(found)
    if out is not None:
        write_text(out, f"{text}\n")


def _print(found: SampleEvaluation) -> None:
    names = list(found.overall.values)
    names.sort(key=lambda name: name != found.ranks)
    title = f"{found.weights} on {found.scored}, {found.precision}"
    table = Table("", *(_title(name) for name in names), title=title, box=None)
    for label, values in (("weights", found.overall.values), (found.base, found.overall.baseline)):
        table.add_row(label, *(measure(name).text(values[name]) for name in names))
    say_table(table)
    low, high = (measure(found.ranks).text(end) for end in (found.interval.low, found.interval.high))
    say(f"{measure(found.ranks).title} over other samples of the kind: {low} to {high} at 95 %")
    if not found.by_class:
        return
    names = list(next(iter(found.by_class.values())).values)
    table = Table("class", "samples", *(_title(name) for name in names), box=None)
    for label, of in found.by_class.items():
        table.add_row(label, str(of.items), *(measure(name).text(of.values[name]) for name in names))
    say_table(table)


def _title(name: str) -> str:
    found = measure(name)
    return f"{found.title} {found.unit}".rstrip()
