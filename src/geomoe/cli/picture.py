"""``geomoe picture``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from geomoe.cli.progress import told
from geomoe.cli.say import say, say_table

if TYPE_CHECKING:
    from geomoe.evaluation.super_resolution.compare import Comparison, Score
    from geomoe.models import LoadedModel

__all__ = ["picture"]


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("mfg_hmoe_light",),
    show_default=True,
    help="Name of a model, or a weights file; repeat it to compare several.",
)
@click.option("--scale", type=int, default=4, show_default=True)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The picture: .png or .pdf."
)
@click.option(
    "--crop", "crops", multiple=True, metavar="X,Y,W,H", help="In high-resolution pixels; repeatable."
)
@click.option("--degradation", help="How the input is made of IMAGE.  [default: bilinear]")
@click.option(
    "--protocol", help="How result and truth are compared.  [default: mfg_hmoe; hsenet without RGB]"
)
@click.option("--as-input", "--no-truth", is_flag=True, help="IMAGE is the input itself; there is no truth.")
@click.option(
    "--layer", type=int, default=-1, show_default=True, help="Of those that route, from 1; -1 is the last."
)
@click.option("--tile", type=int, help="Side of a tile in input pixels: smaller takes less memory.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option("--overwrite", is_flag=True, help="Replace the picture where it exists.")
def picture(
    image: Path,
    models: tuple[str, ...],
    scale: int,
    output: Path,
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
    """Draw crops of IMAGE super-resolved by models, beside the truth, and which expert drew each pixel.

    IMAGE is downsampled first, so that its own pixels are the truth. Without --crop, the square is taken in
    which truth, baseline and the models differ most.
    """
    from geomoe.evaluation.crops import parse_crop
    from geomoe.evaluation.picture import check_target, draw
    from geomoe.evaluation.super_resolution.compare import compare
    from geomoe.models import load

    if as_input and (degradation or protocol):
        raise click.UsageError(
            "--degradation and --protocol mean nothing with --as-input, which has no truth"
        )
    check_target(output, image, models, overwrite=overwrite)
    boxes = [parse_crop(crop) for crop in crops]
    loaded = _told_apart(models, [load(model, scale) for model in models])
    with told("tiles") as progress:
        found = compare(
            image,
            loaded,
            scale=scale,
            degradation=None if as_input else degradation or "bilinear",
            crops=boxes,
            layer=layer,
            protocol=protocol,
            tile=tile,
            device=device,
            progress=progress,
        )
    draw(found, output)
    if as_json:
        say(*json.dumps(found.as_dict(), indent=2).split("\n"))
    else:
        _print(found)
        say(f"{output}: {_count(len(boxes) or 1, 'crop')}, {_count(len(loaded), 'model')}")


def _told_apart(given: tuple[str, ...], loaded: list[LoadedModel]) -> list[LoadedModel]:
    """Files of one name by their folders too: training calls all of its files ``best`` and ``last``."""
    names = [model.name for model in loaded]
    return [
        replace(model, name=f"{Path(path).resolve().parent.name}/{model.name}")
        if names.count(model.name) > 1 and Path(path).is_file()
        else model
        for path, model in zip(given, loaded, strict=True)
    ]


def _print(found: Comparison) -> None:
    if found.protocol is None:
        return
    heads = ["whole image", *(f"{c.x},{c.y},{c.width},{c.height}" for c in found.crops)]
    title = f"PSNR and SSIM, protocol {found.protocol}, input {found.degradation}"
    table = Table("", *heads, title=title, box=None)
    for panel in found.panels:
        table.add_row(panel.name, *(_cell(score) for score in (panel.whole, *panel.crops)))
    say_table(table)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _cell(score: Score) -> str:
    return "too small" if score is None else f"{score[0]:.2f} dB {score[1]:.4f}"
