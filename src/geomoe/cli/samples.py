"""``geomoe evaluate`` of weights that see whole samples: their task's metrics, as tables and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from geomoe.cli.progress import told
from geomoe.cli.say import say, say_table
from geomoe.cli.score_table import score_table
from geomoe.errors import GeomoeError
from geomoe.evaluation.scores import Scores
from geomoe.files import write_text
from geomoe.metrics.measures import measure

if TYPE_CHECKING:
    from geomoe.data.split import Split
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
    card: Path | None,
) -> None:
    """Score a model on the samples of a folder; print or write what was found, or note it on a card."""
    from geomoe.evaluation.measure import measured_samples, write_measured
    from geomoe.evaluation.samples import evaluate_samples

    if card is not None and precision != "float32":
        raise GeomoeError("a card holds what these weights make in float32; leave out --card or --precision")
    with told("samples") as progress:
        found = evaluate_samples(
            model, root, split=split, device=device, precision=precision, skip_corrupt=skip_corrupt,
            progress=progress, say=lambda line: say(f"geomoe: note: {line}", err=True),
        )  # fmt: skip
    text = json.dumps(found.as_dict(), indent=2)
    if str(out) == "-":
        say(*text.split("\n"))
    else:
        _print(found)
        if out is not None:
            write_text(out, f"{text}\n")
    if card is not None:
        one = measured_samples(found)
        write_measured(model, card, [one])
        said = measure(one.ranks).text(one.gain, sign=True)
        say(f"{card}: its card says {said} on {one.describe()}", err=str(out) == "-")


def _print(found: SampleEvaluation) -> None:
    names = sorted(found.overall.values, key=lambda name: name != found.ranks)
    title = f"{found.weights} on {found.scored}, {found.precision}"
    rows = {found.base: Scores(found.overall.items, found.overall.baseline, {}, {}), "weights": found.overall}
    say_table(score_table(title, rows, names, items="samples", bold="weights"))
    low, high = (measure(found.ranks).text(end) for end in (found.interval.low, found.interval.high))
    if len(found.by_item) > 1:  # of one sample nothing is known of others
        say(f"{measure(found.ranks).title} over other samples of the kind: {low} to {high} at 95 %")
    if found.by_class:
        names = list(next(iter(found.by_class.values())).values)
        say_table(score_table("", found.by_class, names, items="samples"))
