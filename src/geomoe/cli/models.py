"""``geomoe models``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click
import torch
from rich.table import Table

from geomoe.cli.say import say, say_table
from geomoe.metrics.measures import measure
from geomoe.models import Card, available_weights, list_models, load, read_card
from geomoe.models.measured import Measured
from geomoe.models.registry import build, config_of, describe
from geomoe.printable import counted

__all__ = ["models"]


@click.command()
@click.argument("name", required=False)
@click.option("--scale", type=int, help="Where weights for several scales exist.")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def models(name: str | None, scale: int | None, as_json: bool) -> None:
    """List models, and on what the weights that ship were measured; with NAME, show the card of its weights.

    By what cards say was measured, upscale chooses among the weights.
    """
    if name is None:
        if scale is not None:
            raise click.UsageError("--scale needs a NAME")
        if as_json:
            say(*_as_json(_listed()))
        else:
            _list()
            say("")
            _list_measured()
        return
    names = [name]
    if scale is None and name in list_models():
        names = [key for key, path in available_weights().items() if read_card(path).model == name]
        if not names:
            config = asdict(config_of(name, {}))
            say(*(_as_json(config) if as_json else _readable(name, config)))
            say(f"no weights of {name} ship with geomoe", err=True)
            return
    cards = {each: asdict(load(each, scale).card) for each in names}
    if as_json:
        say(*_as_json(cards if len(cards) > 1 else cards[names[0]]))
    else:
        say(*(line for each, card in cards.items() for line in _readable(each, card)))


def _list() -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    table.add_column("parameters", justify="right", min_width=13)
    table.add_column("what it is")
    table.add_column("weights, gain over the baseline", no_wrap=True)
    shipped = {key: read_card(path) for key, path in available_weights().items()}
    for model in list_models():
        with torch.device("meta"):
            count = sum(
                p.numel() for p in build(model, {}).parameters()
            )  # of a scale of 4, where there is one
        weights = [_with_gain(key, card) for key, card in shipped.items() if card.model == model]
        table.add_row(model, f"{count:,}", describe(model), "\n".join(weights) or "-")
    say_table(table)


def _listed() -> dict[str, Any]:
    """The weights that ship, and what they were measured on."""
    cards = {key: read_card(path) for key, path in available_weights().items()}
    return {
        key: {"model": card.model, "scale": card.config.get("scale"), "measured": card.measured}
        for key, card in cards.items()
    }


def _list_measured() -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("weights", no_wrap=True)
    table.add_column("scale", justify="right")
    table.add_column("measured on")
    table.add_column("gain", justify="right")
    for key, path in available_weights().items():
        card = read_card(path)
        rows = [(one.describe(), _gain(one)) for one in card.evaluations]
        for on, gain in rows or [("its card does not say", "")]:
            table.add_row(key, str(card.config.get("scale")), on, gain)
    say_table(table)


def _with_gain(key: str, card: Card) -> str:
    """By the scores of the card, in the unit of what ranks there."""
    gain, ranks = card.scores.get("gain"), [one.ranks for one in card.evaluations]
    unit = measure(ranks[-1]).unit if ranks else ""
    return key if gain is None else f"{key} {gain:+.2f} {unit}".rstrip()


def _gain(one: Measured) -> str:
    return measure(one.ranks).text(one.gain, sign=True)


def _as_json(value: object) -> list[str]:
    return json.dumps(value, indent=2).split("\n")


def _readable(name: str, card: dict[str, Any]) -> list[str]:
    lines = [name]
    # What was measured is worth more than the scores of the validation that chose the weights.
    first = ["model", "task", "measured"] if card.get("measured") else []
    for key, value in {**{key: card[key] for key in first}, **card}.items():
        if key == "measured":
            said = [_measured(one) for one in value] or ["its card does not say"]
            lines += [f"  {key:<20} {words}" for words in said]
        elif value in ({}, "", []):  # of which the card says nothing
            continue
        elif isinstance(value, dict):
            scored = value.get("scored") if key == "scores" else None
            lines.append(f"  {key}, {scored}" if scored else f"  {key}")
            lines += [f"    {k:<18} {_short(v)}" for k, v in value.items() if k not in ("start", "stages")]
            lines += [f"    {'stages':<18} {stage}" for stage in _stages(value)]
            lines += [f"    {'start':<18} {leg}" for leg in _legs(value)]
        else:
            lines.append(f"  {key:<20} {_short(value)}")
    return lines


def _measured(held: dict[str, Any]) -> str:
    one = Measured.from_card(held)
    noise = "" if one.noise is None else f", noise {one.noise[0]:.2g} to {one.noise[1]:.2g}"
    return (
        f"{_gain(one)} over the baseline's "
        f"{measure(one.ranks).text(one.baseline[one.ranks])}: {one.describe()}{noise}; "
        f"{counted(one.images, 'image')}, protocol {one.protocol}, {one.date}"
    )


def _short(value: object) -> object:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_short(each)}" for name, each in value.items())
    if not isinstance(value, list):
        return value
    if value and all(isinstance(each, str) for each in value):
        return "; ".join(value)
    return f"{len(value)} rows or numbers, --json prints them" if len(value) > 16 else value


def _stages(recipe: dict[str, Any]) -> list[str]:
    """Of each stage its share, how much it trains and its losses; what it trains may be hundreds of names."""
    return [
        f"{stage['name']}, share {stage['share']:g}, trains "
        + (counted(len(stage["trains"]), "part") if stage.get("trains") else "all")
        + (f", losses {_short(stage['losses'])}" if stage.get("losses") else "")
        for stage in recipe.get("stages") or []
    ]


def _legs(recipe: dict[str, Any]) -> list[str]:
    """The weights that training began from, those that they began from and so on."""
    legs = []
    while isinstance(start := recipe.get("start"), dict):
        before = start.get("recipe")
        recipe = before if isinstance(before, dict) else {}
        legs.append(f"{str(start.get('hash', '?'))[:12]}, after {recipe.get('steps', '?')} steps")
    return legs
