"""``geomoe monitor``: whether new data look and are routed as those did that weights are for; updates."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from geomoe.cli.progress import told
from geomoe.cli.say import say, say_table
from geomoe.errors import GeomoeError
from geomoe.files import write_text
from geomoe.metrics.measures import measure

if TYPE_CHECKING:
    from torch import Tensor

    from geomoe.data.split import Split
    from geomoe.evaluation.update import Update
    from geomoe.models import LoadedModel

__all__ = ["ALARM", "monitor"]

ALARM = 3
"""Status of drift, and of an update that is worse somewhere; 1 is bad input."""
_SPLITS = ("train", "validation", "fit", "test")


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", help="Weights whose card has a reference, as geomoe calibrate writes it.")
@click.option("--before", help="Weights in use: compare them with --after on DATA, whose truth is known.")
@click.option("--after", help="Weights that are to replace them.")
@click.option("--split", type=click.Choice(_SPLITS),
              help="Part of a data set.  [default: every image below DATA; of updates test]")  # fmt: skip
@click.option("--level", type=float, default=0.01, show_default=True,
              help="Share of runs without drift that may give an alarm.")  # fmt: skip
@click.option(
    "--json", "out", type=click.Path(path_type=Path), help="Write all of it; - for standard output."
)
def monitor(
    data: Path,
    model: str | None,
    before: str | None,
    after: str | None,
    split: str | None,
    level: float,
    out: Path | None,
) -> None:
    """Compare what is new in DATA with the reference on a card, in a line; status 3 is an alarm.

    Bands and routing of each image are held against those of samples that the weights were not trained on,
    by region and month too where georeference, tags or names tell them. With --before and --after, quality
    and routing of two weights by region, before one replaces the other; status 3 where it is shown to be
    worse.
    """
    if (model is None) == (before is None) or (before is None) != (after is None):
        raise GeomoeError("give --model WEIGHTS to look for drift, or --before WEIGHTS --after WEIGHTS")
    if not data.exists():
        raise GeomoeError(f"{data} does not exist; give a folder of images, or one image")
    from geomoe.models import load

    if model is None:
        from geomoe.evaluation.update import compare_weights

        with told("samples") as progress:
            update = compare_weights(
                load(cast(str, before)), load(cast(str, after)), data,
                split=cast("Split", split or "test"), progress=progress,
            )  # fmt: skip
        _write(out, update.as_dict(), lambda: _print(update))
        if update.worse:
            sys.exit(ALARM)
        return
    from geomoe.evaluation.drift import find_drift, place_of

    loaded = load(model)
    samples, number = _samples(loaded, data, split)
    with told("samples") as progress:
        drift = find_drift(
            loaded, samples, lambda name: place_of(_file(data, name)), level=level,
            progress=lambda: progress(0, number),
        )  # fmt: skip
    _write(out, drift.as_dict(), lambda: say(drift.line))
    if drift.alarms:
        sys.exit(ALARM)


def _samples(
    model: LoadedModel, data: Path, split: str | None
) -> tuple[Iterator[tuple[str, Mapping[str, Tensor]]], int]:
    """New samples by name, and how many."""
    from geomoe.evaluation.drift import new_samples, scenes_of

    if split is None:
        paths = scenes_of(data)
        return new_samples(model, paths), len(paths)
    from geomoe.tasks.families import family

    named = family(model.card.task).data.named(data, cast("Split", split), model).samples
    return iter(cast(Sequence[Any], named)), len(named)


def _file(data: Path, name: str) -> Path:
    return next((path for path in (data / name, Path(name)) if path.is_file()), data / name)


def _write(out: Path | None, found: dict[str, Any], line: Callable[[], None]) -> None:
    text = json.dumps(found, indent=1)
    if str(out) == "-":
        say(*text.split("\n"))
        return
    line()
    if out is not None:
        write_text(out, f"{text}\n")


def _print(update: Update) -> None:
    from rich.table import Table

    of = measure(update.metric)
    title = f"{update.before} and {update.after} on {update.data}: {of.title}"
    heads = ("", "samples", "before", "after", "difference, 95 % together", "same expert", "load moved by")
    table = Table(*heads, title=title, title_justify="left", box=None, pad_edge=False)
    for place in update.places:
        d = place.difference
        ends = "" if d.ends is None else f" [{d.low:+.{of.digits}f}, {d.high:+.{of.digits}f}]"
        routing = ["" if x is None else f"{x:.0%}" for x in (place.routing, place.loads)]
        table.add_row(
            place.name, str(place.samples), f"{place.before:.{of.digits}f}", f"{place.after:.{of.digits}f}",
            f"{d.mean:+.{of.digits}f}{ends}", *routing,
        )  # fmt: skip
    say_table(table)
    worse = ", ".join(place.name for place in update.worse)
    say(f"WORSE in {worse}" if worse else "shown to be worse nowhere")
