"""``geomoe upscale``, ``geomoe predict`` and ``geomoe info``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from geomoe.cli.forecast import forecast_lines, forecast_many, listed_bands
from geomoe.cli.of_map import OfMap, is_made
from geomoe.cli.progress import night_progress, terminal_progress, told
from geomoe.cli.say import say
from geomoe.cli.units import Bytes, Nodata, Seconds
from geomoe.errors import GeomoeError
from geomoe.pipeline.layers import LAYERS
from geomoe.printable import counted

if TYPE_CHECKING:
    from geomoe.pipeline import Outcome, Predictor, Request

__all__ = ["info", "predict", "upscale"]

_NODATA = (
    "Value of pixels without data, or none. By default what SRC declares, else one value that all bands have "
    "over a large area at the border."
)


_SCALE, _MODEL = "Output pixels along one input pixel.", "Name of a model, or a weights file"

_OPTIONS = (
    click.argument("src", required=False),
    click.argument("dst", required=False),
    click.option(
        "--manifest",
        metavar="PATH",
        help="Many scenes: a CSV file with columns src,dst and perhaps maps, bands; or a STAC collection.",
    ),
    click.option("--processes", type=click.IntRange(1), help="Of a manifest: scenes done at a time."),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Of a manifest: of a Dask scheduler; local for one made here.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0),
        default=1,
        show_default=True,
        help="Of a manifest: how often a scene that failed is tried again.",
    ),
    click.option(
        "--scene-timeout",
        type=Seconds(),
        help="Of a manifest: how long a scene may take, such as 2h; then the others continue without it.",
    ),
    click.option(
        "--report",
        metavar="PATH",
        help="Of a manifest: what became of each scene.  [default: MANIFEST.report.csv]",
    ),
    *(
        click.option(f"--{name}", metavar="PATH", help=f"Also write {shows}.")
        for name, shows in LAYERS.items()
    ),
    click.option("--fallback", is_flag=True, help="Draw what --reliability would mark by interpolation."),
    click.option(
        "--conserve",
        is_flag=True,
        help="Keep SRC: the mean of the output over each of its pixels is that pixel.",
    ),
    click.option(
        "--bands",
        help="Names or 1-based numbers, such as B04,B03,B02. All by default (of a product: of its finest "
        "grid).",
    ),
    click.option("--nodata", type=Nodata(), help=_NODATA),
    click.option("--tile", type=int, help="Side of a tile in input pixels: smaller takes less memory."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ..."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        default="auto",
        show_default=True,
        help="auto: bfloat16 where the device has it and the weights' card says what they lose in it.",
    ),
    click.option(
        "--memory", type=Bytes(), help="What may be taken, such as 4GB. Half of what is free by default."
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Try a few tiles, say what is needed, and write nothing. Of a manifest: read every header, too.",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace DST, maps and their items. Of a manifest: what is right already is left.",
    ),
)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """What `upscale` and `predict` have in common."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_options
@click.option("--scale", type=int, default=4, show_default=True, help=_SCALE)
@click.option(
    "--model",
    default="auto",
    show_default=True,
    help=f"{_MODEL}; auto: of the weights that ship, those that fit the scene.",
)
def upscale(**given: Any) -> None:
    """Super-resolve the scene SRC into the cloud-optimised GeoTIFF DST.

    SRC is a GeoTIFF or JPEG 2000, a Sentinel-2 product (its folder or zip) or a STAC item of local files;
    of several grids, the finest that has the --bands.

    Grid, data type, range, validity, band names and tags of SRC are kept; the transform is finer by
    the scale. With --manifest, many scenes; what is done already is left as it is.
    """
    _carry_out(**given)


@click.command()
@_options
@click.option("--scale", type=int, help=f"{_SCALE}  [default: the model's own]")
@click.option("--model", required=True, help=f"{_MODEL}.")
@click.option(
    "--after",
    metavar="PATH",
    help="The scene of the second date, on the grid of SRC, for a model that compares two.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    help="Also draw a map of classes, with its legend: .png, .pdf.",
)
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    help="Also write the polygons of a map of classes: .gpkg.",
)
@click.option(
    "--class", "classes", multiple=True, help="Of --vectors: this class alone; can be given several times."
)
@click.option(
    "--least", type=click.IntRange(1), help="Of --vectors: pixels that a polygon has at least.  [default: 1]"
)
@click.option(
    "--summary",
    type=click.Path(path_type=Path),
    help="Also write how much there is of each class: .csv.",
)
@click.option(
    "--zones",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Of --summary: polygons, in each of which classes are counted.",
)
def predict(
    picture: Path | None,
    vectors: Path | None,
    classes: tuple[str, ...],
    least: int | None,
    summary: Path | None,
    zones: Path | None,
    **given: Any,
) -> None:
    """Show the scene SRC to a model, and write what it makes of it to DST.

    What that is, the model's weights say. Classes of pixels become a cloud-optimised GeoTIFF of bytes with
    their names and colours, 0 where SRC has no data; an image, what upscale makes. Labels, values and
    features of whole images become a table: of the windows of a scene (.csv, .geojson), or of a folder of
    images (.csv).

    SRC is a scene as for upscale, a hyperspectral cube (.npz), or a folder of images. Of a model that
    compares two dates it is the scene of the first, or holds the bands of both.
    """
    ending = Path(given["dst"] or "map.tif").suffix.lower()  # a manifest has no DST of its own
    table = ending in (".csv", ".geojson")
    if not table and ending not in (".tif", ".tiff"):
        raise GeomoeError(f"{given['dst']}: a map ends in .tif, a table in .csv or .geojson")
    if (classes or least) and vectors is None:
        raise click.UsageError(f"{'--class' if classes else '--least'} is of --vectors")
    if zones is not None and summary is None:
        raise click.UsageError("--zones is of --summary")
    at = given["instances"]
    of_map = OfMap(picture, vectors, summary, classes, least or 1, zones, None if at is None else Path(at))
    if not of_map.wanted:
        (_table if table else _carry_out)(**given)
        return
    if table or given["manifest"] or given["src"] is None or given["dst"] is None:
        raise click.UsageError(f"{next(iter(of_map.wanted))} is of one map of classes")
    lines = of_map.check(given)
    made = Path(given["dst"])
    if given["dry_run"]:
        _carry_out(**given, beside=lines)
        return
    if is_made(**given):
        say(f"{made}: made before, from this scene by these weights")
    else:
        _carry_out(**given)
    of_map.write(made)


_OF_TABLES = ("bands", "nodata", "tile", "device", "precision", "overwrite")


def _table(src: str, dst: str, model: str, **given: Any) -> None:
    from geomoe import pipeline
    from geomoe.models import load

    said_by, usual = click.get_current_context().get_parameter_source, ParameterSource.DEFAULT
    if foreign := [name for name in given if name not in _OF_TABLES and said_by(name) is not usual]:
        raise click.UsageError(f"--{foreign[0].replace('_', '-')} is for maps; leave it out for a table")
    options = {name: given[name] for name in _OF_TABLES}
    pipeline.check_table(src, dst, overwrite=options["overwrite"])
    with told("samples") as progress:
        done = pipeline.predict_table(src, dst, model=load(model), progress=progress, **options)
    cut = "" if done.window is None else f" of {done.window} pixels"
    empty = f"; {done.empty} without a valid pixel are left out" if done.empty else ""
    say(f"{done.output}: {done.rows} {done.of}{cut}, by {model}{empty}")
    for note in done.notes:
        say(note)


def _carry_out(
    src: str | None,
    dst: str | None,
    manifest: str | None,
    processes: int | None,
    scheduler: str | None,
    retries: int,
    scene_timeout: float | None,
    report: str | None,
    dry_run: bool,
    beside: Sequence[str] = (),
    **options: Any,
) -> None:
    from geomoe import pipeline
    from geomoe.pipeline.targets import refuse_early

    if manifest is not None:
        if src or dst or options.get("after") or options["bands"] or any(options[name] for name in LAYERS):
            raise click.UsageError("with --manifest, scenes, targets, maps and bands are its columns")
        if dry_run and (scheduler or report):
            raise click.UsageError("a --dry-run describes this machine, and writes no report")
        common = {name: value for name, value in options.items() if name not in ("after", "bands", *LAYERS)}
        requests = pipeline.read_manifest(manifest, **common)
        if dry_run:
            forecast_many(requests, processes)
            return
        how = {"processes": processes, "scheduler": scheduler, "retries": retries, "limit": scene_timeout}
        _predict_many(requests, Path(manifest), report, **how)
        return
    if src is None or dst is None:
        raise click.UsageError("expected SRC and DST, or --manifest")
    of_many = {
        "processes": processes,
        "scheduler": scheduler,
        "scene-timeout": scene_timeout,
        "report": report,
    }
    if given := [f"--{name}" for name, value in of_many.items() if value is not None]:
        raise click.UsageError(f"{given[0]} is for a --manifest; leave it out for one scene")
    asked = pipeline.Request.of(src, dst, **options)
    refuse_early(asked)
    from geomoe.models import load  # and torch, which takes seconds

    if asked.model != "auto":
        options["model"] = load(options["model"], asked.scale)
    if dry_run:
        say(*forecast_lines(pipeline.forecast_scene(src, dst, **options), beside))
        return

    def heard(plan: pipeline.ScenePlan) -> None:
        """What was decided of the scene, before the first tile and not after hours of them."""
        for note in plan.notes:
            say(note)

    done = pipeline.predict(src, dst, progress=terminal_progress("tiles"), told=heard, **options)
    width, height = done.plan.output_size
    say(
        f"{done.output}: {width} x {height}, {done.title}, {listed_bands(done.plan.names)}, "
        f"by {done.model} in {done.plan.precision}"
    )
    for name, path in done.layers.items():
        say(f"{path}: {LAYERS[name]}")
    say(f"{done.items[0]}: how it was made; geomoe verify checks it")


def _predict_many(requests: list[Request], manifest: Path, report: str | None, **how: Any) -> None:
    from geomoe import pipeline

    place = Path(report or f"{manifest}.report.csv")
    pipeline.check_report(place, manifest, requests, str(requests[0].model))
    so_far = pipeline.UnfinishedReport(place, requests)

    def heard(outcome: Outcome) -> None:
        so_far.add(outcome)
        if outcome.message:
            say(f"{outcome.request.src}: {outcome.status}: {outcome.message}", err=True)

    try:
        with night_progress() as shown:
            night = pipeline.Night(len(requests), shown)
            outcomes = pipeline.predict_many(requests, heard=heard, night=night, **how)
    except BaseException:
        so_far.write()
        raise
    pipeline.write_report(place, outcomes)
    counts = Counter(outcome.status for outcome in outcomes)
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    say(f"{counted(len(outcomes), 'scene')}: {said}; {place}")
    if missing := counts["failed"] + counts["busy"]:
        raise GeomoeError(f"{missing} of {len(outcomes)} scenes were not made; see {place}")


@click.command()
@click.argument("scene")
@click.option("--scale", type=int, help="Also say what would be done at this scale.  [default: 4]")
@click.option("--model", help="Also say what this model would do: its name, or weights.  [default: auto]")
@click.option("--bands", help="Names or 1-based numbers. All by default.")
@click.option("--nodata", type=Nodata(), help=_NODATA.replace("SRC", "SCENE"))
def info(
    scene: str,
    scale: int | None,
    model: str | None,
    bands: str | None,
    nodata: float | Literal["none"] | None,
) -> None:
    """Say what is understood of SCENE: grid, bands, radiometry, validity.

    With --scale or --model, also what would be done.
    """
    from geomoe.pipeline.describe import describe_scene

    chosen: str | Predictor | None = None
    if model is not None or scale is not None:
        from geomoe.pipeline import Request
        from geomoe.pipeline.targets import refuse_early

        refuse_early(Request(scene, "", bands=bands, nodata=nodata), writes=False)
        from geomoe.models import load  # and torch, which takes seconds

        model = model or "auto"
        if scale is None and not model.endswith(".safetensors"):
            scale = 4
        chosen = model if model == "auto" else load(model, scale)
    facts = describe_scene(scene, model=chosen, scale=scale, bands=bands, nodata=nodata)
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        say(f"{name:<{width}}  {value}")
