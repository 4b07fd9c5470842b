"""``geomoe picture``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from geomoe.cli.progress import told
from geomoe.cli.say import say, say_table
from geomoe.errors import GeomoeError

if TYPE_CHECKING:
    from geomoe.models import LoadedModel

__all__ = ["picture"]


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("mfg_hmoe_light",),
    show_default=True,
    help="Name of a model, or a weights file; repeat it to compare several.",
)
@click.option("--scale", type=int, help="Of a model by name, 4 by default; weights have their own.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The picture: .png or .pdf."
)
@click.option(
    "--split",
    type=click.Choice(["fit", "validation", "test"]),
    help="Of samples of a folder.  [default: test]",
)
@click.option(
    "--samples", type=click.IntRange(min=1), help="Of a folder, how many.  [default: 12; 3 of maps]"
)
@click.option(
    "--crop",
    "crops",
    multiple=True,
    metavar="X,Y,W,H",
    help="Of an image that is made larger, in pixels of the result; repeatable.",
)
@click.option("--degradation", help="How the input is made of an image.  [default: bilinear]")
@click.option(
    "--protocol", help="How result and truth are compared.  [default: mfg_hmoe; hsenet without RGB]"
)
@click.option(
    "--as-input", "--no-truth", is_flag=True, help="The image is the input itself; there is no truth."
)
@click.option(
    "--layer", type=int, default=-1, show_default=True, help="Of those that route, from 1; -1 is the last."
)
@click.option("--tile", type=int, help="Side of a tile in input pixels: smaller takes less memory.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option("--overwrite", is_flag=True, help="Replace the picture where it exists.")
def picture(
    source: Path,
    models: tuple[str, ...],
    scale: int | None,
    output: Path,
    split: str | None,
    samples: int | None,
    crops: tuple[str, ...],
    degradation: str | None,
    protocol: str | None,
    as_input: bool,
    layer: int,
    tile: int | None,
    device: str,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Draw what models make of SOURCE beside the truth, and what their experts did.

    Of models that make images larger, SOURCE is an image. It is downsampled first, so that its own pixels are
    the truth; without --crop, the square is taken in which truth, baseline and the models differ most. Of
    all others it is a folder of samples, as for evaluate: labels and how sure they are, or maps of classes.
    """
    from geomoe.evaluation.evaluators import evaluator
    from geomoe.evaluation.figures import check_target
    from geomoe.models import list_models, load

    if as_input and (degradation or protocol):
        raise click.UsageError(
            "--degradation and --protocol mean nothing with --as-input, which has no truth"
        )
    check_target(output, source, models, overwrite=overwrite)
    named = list_models()
    loaded = [load(model, 4 if scale is None and model in named else scale) for model in models]
    tasks = sorted({model.card.task for model in loaded})
    if len(tasks) > 1:
        raise GeomoeError(f"the weights are of {' and '.join(tasks)}; draw those of one task at a time")
    options = {
        "split": split, "samples": samples, "crops": crops, "degradation": degradation, "protocol": protocol,
        "as_input": as_input, "tile": tile,
    }  # fmt: skip
    with told("parts") as progress:
        drawn = evaluator(tasks[0]).picture(
            _told_apart(models, loaded),
            source,
            output,
            layer=layer,
            device=device,
            progress=progress,
            **{option: value for option, value in options.items() if value},
        )
    if as_json:
        say(*json.dumps(drawn.found, indent=2).split("\n"))
        return
    if drawn.rows:
        table = Table(*drawn.heads, title=drawn.title, box=None)
        for row in drawn.rows:
            table.add_row(*row)
        say_table(table)
    say(f"{output}: {drawn.said}")


def _told_apart(given: Sequence[str], loaded: list[LoadedModel]) -> list[LoadedModel]:
    """Files of one name by their folders too: training calls all of its files ``best`` and ``last``."""
    names = [model.name for model in loaded]
    folders = [Path(path).resolve().parent.parts if Path(path).is_file() else () for path in given]
    for depth in range(1, max(map(len, folders)) + 1):
        alike = [name for name in names if names.count(name) > 1]
        names = [
            "/".join((*of[-depth:], model.name)) if name in alike else name
            for name, of, model in zip(names, folders, loaded, strict=True)
        ]
    return [replace(model, name=name) for name, model in zip(names, loaded, strict=True)]
