"""``geomoe evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geomoe.cli.progress import told
from geomoe.cli.say import say
from geomoe.cli.score_table import say_scores
from geomoe.errors import GeomoeError
from geomoe.files import overlap, write_text
from geomoe.metrics.measures import measure

if TYPE_CHECKING:
    from geomoe.evaluation.super_resolution.by_source import Told
    from geomoe.models.precision import Precision

__all__ = ["evaluate"]


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    default=["mfg_hmoe_light"],
    show_default=True,
    help="Name of a model, or a weights file; several with --sources.",
)
@click.option("--scale", type=int, help="Of a model by name, 4 by default; weights have their own.")
@click.option("--data", "root", required=True, type=click.Path(path_type=Path), help="Folder of the samples.")
@click.option(
    "--protocol", help="Of images that are made: how these and truth are compared.  [default: mfg_hmoe]"
)
@click.option(
    "--degradation",
    help="Of images that are made larger: how inputs are made of the samples; or real; several, with commas, "
    "with --sources.  [default: bilinear; with --sources bilinear,mtf]",
)
@click.option(
    "--metrics",
    default="",
    help="Of images that are made, add any of ergas, sam, scc, consistency to those of the protocol.",
)
@click.option(
    "--without",
    metavar="SENSOR",
    multiple=True,
    help="Of samples that several sensors measured: take this one away; can be given several times.",
)
@click.option(
    "--other-sensor",
    is_flag=True,
    help="Of images of three bands that are not made larger: score them as another sensor would have taken "
    "them, whose bands see a part of their neighbours', and less light.",
)
@click.option(
    "--split",
    "--part",
    "split",
    type=click.Choice(["train", "fit", "validation", "test"]),
    default="test",
    show_default=True,
    help="Of UCMerced, AID, images with labels or masks and --sources; other folders are scored whole.",
)
@click.option(
    "--sources",
    metavar="NAME|FILE",
    help="Score what is held out of each source of a training configuration, or of a YAML file with a list "
    "'sources'; --data is the folder of all.",
)
@click.option(
    "--told",
    "told_models",
    type=click.Choice(("all", "scene", "nothing")),
    default="all",
    show_default=True,
    help="With --sources: tell informed models all, also how the input was made; what upscale would find of "
    "such a scene; or nothing.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="With --sources: at most so many images of each, for a look."
)
@click.option(
    "--markdown", type=click.Path(path_type=Path), help="With --sources: also write the table here."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="In bfloat16, also say what that costs against float32.",
)
@click.option(
    "--card",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Also write the weights here, with what was found on their card, by which upscale chooses and "
    "warns; of bfloat16 what that costs.",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace the weights of --card, which may be those of --model."
)
@click.option("--skip-corrupt", is_flag=True, help="Leave out images that cannot be read, and say which.")
@click.option(
    "--conserve", is_flag=True, help="Score results whose means are the pixels of the input, as upscale's."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")
@click.option(
    "--json", "out", type=click.Path(path_type=Path), help="Also write the result here ('-' prints it)."
)
@click.option(
    "--name",
    default="",
    help="With --card: what the samples are.  [default: their data set's or folder's name]",
)
@click.option("--sensor", help="With --card: what took the samples, such as sentinel-2, landsat-8, aerial.")
@click.option(
    "--gsd",
    type=click.FloatRange(0, 1e5, min_open=True),
    help="With --card: their ground sampling distance, metres.",
)
def evaluate(
    models: tuple[str, ...],
    scale: int | None,
    root: Path,
    protocol: str | None,
    degradation: str | None,
    metrics: str,
    without: tuple[str, ...],
    other_sensor: bool,
    split: str,
    sources: str | None,
    told_models: Told,
    limit: int | None,
    markdown: Path | None,
    precision: Precision,
    card: Path | None,
    overwrite: bool,
    skip_corrupt: bool,
    conserve: bool,
    device: str,
    out: Path | None,
    name: str,
    sensor: str | None,
    gsd: float | None,
) -> None:
    """Print the metrics of weights beside a baseline, by class and over all.

    Of models that make images larger: PSNR, SSIM and further ones, beside interpolation. Of those that
    label images: accuracies, F1, kappa and calibration, beside the largest class.

    A folder in the layout of UCMerced or AID is scored on its test split, any other one of images whole; of
    images with labels or masks, what was held out by the recipe on the card. Pairs that two
    sensors measured are scored as they are by --degradation real. With --sources, each source of a mixed
    training set has a row, and an interval of what is gained over the baseline.
    """
    if sources is not None:
        from geomoe.cli.super_resolution_sources import evaluate_sources

        if split == "train" or metrics or conserve or without or other_sensor or name or sensor or gsd:
            raise GeomoeError(
                "sources have parts fit, validation and test, no --metrics, and say what they are; leave out "
                "--metrics, --conserve, --without, --other-sensor, --name, --sensor and --gsd"
            )
        evaluate_sources(
            models, scale or 4, root, sources, part=split,  # type: ignore[arg-type]
            degradations=_names(degradation or "bilinear,mtf"),
            protocol=protocol or "mfg_hmoe", told_models=told_models, precision=precision, limit=limit,
            skip_corrupt=skip_corrupt, device=device, out=out, markdown=markdown, card=card,
            overwrite=overwrite,
        )  # fmt: skip
        return
    if len(models) != 1 or told_models != "all" or limit is not None or markdown is not None:
        raise GeomoeError("several --model, --told, --limit and --markdown go with --sources; leave them out")
    [model] = models
    from geomoe.evaluation.evaluate import evaluate as run
    from geomoe.evaluation.hardware import hardware
    from geomoe.evaluation.measure import measured, write_measured
    from geomoe.evaluation.precision import write_loss
    from geomoe.models import list_models, load
    from geomoe.models.device import pick_device
    from geomoe.models.weights import check_target

    of_card = {"name": name, "sensor": sensor, "gsd": gsd}
    given = [f"--{option}" for option, value in of_card.items() if value]
    if given and (card is None or precision != "float32"):
        raise click.UsageError(f"{given[0]} is of --card, and of float32")
    if card is not None:
        check_target(card, overwrite=overwrite)
        changed = {"--conserve": conserve, "--without": without, "--other-sensor": other_sensor}
        for option, given_too in changed.items():
            if given_too:
                raise GeomoeError(
                    "a card holds what weights make by themselves, of all that they know; leave out "
                    f"{option} or --card"
                )
        if split != "test":
            raise GeomoeError(f"split {split} is for training; a card holds what was found on the test split")
    if out is not None and str(out) != "-" and (not out.parent.is_dir() or out.is_dir()):
        raise GeomoeError(f"{out} cannot be written; give --json a file in a folder that exists")
    # No JSON is read of the samples.
    data = [] if out is None or out.suffix.lower() == ".json" else [root]
    if out is not None and overlap([out], [Path(model), *data, *([card] if card else [])]):
        raise GeomoeError(f"{out} is the file of the weights, or among the samples; give another --json")
    loaded = load(model, 4 if scale is None and model in list_models() else scale)
    options = {
        "protocol": protocol,
        "degradation": degradation,
        "metrics": _names(metrics),
        "conserve": conserve,
        "without": without,
        "other_sensor": other_sensor,
    }
    with told("samples") as progress:
        result = run(
            loaded,
            root,
            split=split,  # type: ignore[arg-type]
            device=device,
            precision=precision,
            skip_corrupt=skip_corrupt,
            progress=progress,
            say=lambda line: say(f"geomoe: note: {line}", err=True),
            **{option: value for option, value in options.items() if value},
        )
    if str(out) == "-":
        say(*json.dumps(result.as_dict(), indent=2).split("\n"))
    else:
        say_scores(result)
        if out is not None:
            write_text(out, f"{json.dumps(result.as_dict(), indent=2)}\n")
    if card is not None and result.loss is not None:
        write_loss(loaded, result, root, card, hardware(pick_device(device)))
    elif card is not None:
        found = measured(result, name=name, sensor=sensor, gsd=gsd)
        write_measured(loaded, card, [found])
        said = measure(found.ranks).text(found.gain, sign=True)
        say(f"{card}: its card says {said} on {found.describe()}", err=str(out) == "-")


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]
