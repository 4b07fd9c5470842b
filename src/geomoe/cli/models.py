"""``geomoe models``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

__all__ = ["models"]


@click.command()
@click.argument("name", required=False)
@click.option("--scale", type=int, help="Where weights for several scales exist.")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def models(name: str | None, scale: int | None, as_json: bool) -> None:
    """List models and the weights that ship with them; with NAME, show the card of its weights."""
    from geomoe.models import available_weights, list_models, load, read_card
    from geomoe.models.registry import build

    if name is None:
        table = Table("model", "weights", "parameters x4", "gain over bicubic", box=None)
        shipped = {key: read_card(path) for key, path in available_weights().items()}
        for model in list_models():
            count = sum(p.numel() for p in build(model, {"scale": 4}).parameters())
            table.add_row(model, "", f"{count:,}", "")
            for key, card in shipped.items():
                if card.model == model:
                    gain = card.scores.get("gain")
                    table.add_row("", key, "", f"{gain:+.2f} dB" if gain is not None else "")
        Console().print(table)
        return
    names = [name]
    if scale is None and name in list_models():
        names = [key for key, path in available_weights().items() if read_card(path).model == name] or [name]
    for each in names:
        fields = asdict(load(each, scale).card)
        click.echo(json.dumps(fields, indent=2) if as_json else _readable(each, fields))


def _readable(name: str, card: dict[str, object]) -> str:
    lines = [name]
    for key, value in card.items():
        if isinstance(value, dict):
            lines.append(f"  {key}")
            lines += [f"    {k:<18} {v}" for k, v in value.items()]
        else:
            lines.append(f"  {key:<20} {value}")
    return "\n".join(lines)
