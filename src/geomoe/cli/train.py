"""``geomoe fit``, ``geomoe export``, ``geomoe calibrate`` and ``geomoe adapt``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from geomoe.cli.progress import told
from geomoe.cli.say import say
from geomoe.metrics.measures import measure

__all__ = ["adapt", "calibrate", "export", "fit"]


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def fit(args: tuple[str, ...]) -> None:
    """Train a model: geomoe fit --config NAME [--data.root DIR] [--ckpt_path last.ckpt] ..."""
    # Before torch is imported: else its C++ code tells the user about its sources, a process at a time.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from geomoe.tasks.fit import fit as run

    try:
        run(args)
    except SystemExit as stop:
        # Lightning answers Ctrl-C by the exit status of bad input.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "root",
    type=click.Path(path_type=Path),
    required=True,
    help="As for evaluate.",
)
@click.option("--protocol", help="Of images that are made: how they are scored.  [default: mfg_hmoe]")
@click.option("--overwrite", is_flag=True, help="Replace TARGET where it exists.")
@click.option("--half", is_flag=True, help="Store the weights in float16: half the size, scored as rounded.")
def export(source: Path, target: Path, root: Path, protocol: str | None, overwrite: bool, half: bool) -> None:
    """Score weights SOURCE, as training wrote them, on the test split; TARGET has the scores inside."""
    from geomoe.evaluation.export import export as run

    with told("samples") as progress:
        card = run(source, target, root, protocol=protocol, overwrite=overwrite, half=half, progress=progress)
    ranks = card.evaluations[-1].ranks
    gain = measure(ranks).text(card.scores["gain"], sign=True)
    say(f"{target}: {measure(ranks).title} {gain} over the baseline on {card.scores['scored']}")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "root",
    type=click.Path(path_type=Path),
    required=True,
    help="As for fit.",
)
@click.option(
    "--quantile",
    type=float,
    default=0.99,
    show_default=True,
    help="Share of pixels or tokens that are to count as like training.",
)
@click.option("--overwrite", is_flag=True, help="Replace TARGET where it exists; it may be SOURCE.")
def calibrate(source: Path, target: Path, root: Path, quantile: float, overwrite: bool) -> None:
    """Learn what the router of weights SOURCE saw in training; TARGET has it inside, for --reliability."""
    from geomoe.evaluation.calibrate import calibrate as run

    with told("samples") as progress:
        card = run(source, target, root, quantile=quantile, overwrite=overwrite, progress=progress)
    share, data = f"{card.reference['quantile']:.0%}", card.reference["data"]
    say(f"{target}: its threshold counts {share} of what {data} show as like training")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "root",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Folder of images of one new place; masks beside them, NAME_mask.png, are left out.",
)
@click.option(
    "--split",
    type=click.Choice(["fit", "validation", "test"]),
    help="Part of a data set, as the recipe on the card shares it out.  [default: every image below --data]",
)
@click.option(
    "--share",
    type=float,
    default=0.5,
    show_default=True,
    help="Of the images that are learned from: those on which the known places agree best.",
)
@click.option("--rounds", type=int, default=10, show_default=True, help="Passes over these images.")
@click.option("--learning-rate", type=float, default=1e-4, show_default=True, help="Of gradient descent.")
@click.option("--overwrite", is_flag=True, help="Replace TARGET where it exists.")
def adapt(
    source: Path,
    target: Path,
    root: Path,
    split: Literal["fit", "validation", "test"] | None,
    share: float,
    rounds: int,
    learning_rate: float,
    overwrite: bool,
) -> None:
    """Let weights SOURCE of a model of several places, such as gram, learn from images of a new one.

    No label is looked at: what is learned are the model's own answers, on the images for which the gates of
    all places that it knows say much the same. TARGET goes by the known place that most images look like.
    """
    from geomoe.evaluation.adapt import adapt as run

    with told("images") as progress:
        found = run(
            source, target, root, split=split, share=share, rounds=rounds, learning_rate=learning_rate,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    of = found.agreement
    least, most = min(of[name] for name in found.kept), max(of.values())
    say(
        f"{target}: taken for {found.name}, as {found.votes} of {len(of)} images look; learned from "
        f"{len(found.kept)}, whose agreement is {least:.3f} to {most:.3f}"
    )
