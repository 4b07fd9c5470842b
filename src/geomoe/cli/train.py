"""``geomoe fit`` and ``geomoe export``."""

from __future__ import annotations

from pathlib import Path

import click

from geomoe.cli.progress import terminal_progress

__all__ = ["export", "fit"]


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def fit(args: tuple[str, ...]) -> None:
    """Train a model: geomoe fit --config configs/NAME.yaml [--data.root DIR] [--ckpt_path last.ckpt] ..."""
    from geomoe.tasks.fit import fit as run

    run(args)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--data", "root", type=click.Path(path_type=Path), help="Score the test split here, for the card.")
@click.option("--protocol", default="mfg_hmoe", show_default=True)
@click.option("--source", default="", help="What it was trained on, with source and terms, in words.")
@click.option("--licence", default="Apache-2.0", show_default=True, help="SPDX identifier of the weights.")
@click.option("--commit", default="", help="Of the repository; asked of git by default.")
@click.option("--overwrite", is_flag=True, help="Replace WEIGHTS where it exists.")
def export(
    checkpoint: Path,
    weights: Path,
    root: Path | None,
    protocol: str,
    source: str,
    licence: str,
    commit: str,
    overwrite: bool,
) -> None:
    """Write the averaged weights of a training CHECKPOINT to WEIGHTS (.safetensors), with a card inside."""
    from geomoe.evaluation.export import export as run

    run(
        checkpoint,
        weights,
        root=root,
        protocol=protocol,
        source=source,
        licence=licence,
        commit=commit,
        overwrite=overwrite,
        progress=terminal_progress("images"),
    )
    click.echo(f"{weights}: show its card with 'geomoe models {weights}'")
