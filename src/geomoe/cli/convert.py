"""``geomoe convert``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from geomoe.cli.say import say
from geomoe.printable import counted

__all__ = ["convert"]


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--model", metavar="NAME", help="Model that it must be; without, whichever it is.")
@click.option("--source", "origin", default="", help="Where SOURCE came from, for the card.")
@click.option("--licence", default="", help="SPDX identifier of the weights, for the card.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of the model, where tensors do not tell it: border=published; repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace TARGET where it exists.")
def convert(
    source: Path,
    target: Path,
    model: str | None,
    origin: str,
    licence: str,
    options: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Make weights TARGET (.safetensors) of SOURCE, a checkpoint (.pth, .safetensors) of a published program.

    EDSR, RCAN, RRDBNet and ESRGAN, SwinIR, HAT and others; which it is, and of what size, its tensors tell.
    SOURCE is read without running any code that it may hold.
    """
    given = dict(_option(text) for text in options)
    from geomoe.models.published import convert as run

    card = run(
        source, target, model=model, options=given, origin=origin, licence=licence, overwrite=overwrite
    )
    size = f"x{card.config['scale']}, {counted(card.config['bands'], 'band')}"
    say(f"{target}: {card.model} {size}, from {card.recipe['layout']} as published")


def _option(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, the value as JSON where it is that, else the words themselves."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--option {text!r}: expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value
