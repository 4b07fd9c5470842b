"""``geomoe upscale`` and ``geomoe info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from geomoe.cli.progress import terminal_progress
from geomoe.cli.units import Bytes, in_time

if TYPE_CHECKING:
    from geomoe.pipeline import Forecast

__all__ = ["info", "upscale"]

_DEFAULT_MODEL = "mfg_hmoe_light"


@click.command()
@click.argument("src")
@click.argument("dst")
@click.option("--scale", type=int, default=4, show_default=True, help="Output pixels along one input pixel.")
@click.option(
    "--model", default=_DEFAULT_MODEL, show_default=True, help="Name of a model, or a weights file."
)
@click.option("--experts", metavar="PATH", help="Also write the map of which expert drew each pixel.")
@click.option("--bands", help="Names or 1-based numbers, such as B04,B03,B02. All by default.")
@click.option("--tile", type=int, help="Side of a tile in input pixels: smaller takes less memory.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")
@click.option(
    "--memory", type=Bytes(), help="What may be taken, such as 4GB. Half of what is free by default."
)
@click.option("--dry-run", is_flag=True, help="Try a few tiles, say what is needed, and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace DST (and PATH) where it exists.")
def upscale(
    src: str,
    dst: str,
    scale: int,
    model: str,
    experts: str | None,
    bands: str | None,
    tile: int | None,
    device: str,
    memory: int | None,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Super-resolve the GeoTIFF SRC into the cloud-optimised GeoTIFF DST.

    Grid, data type, range, validity, band names and tags of SRC are kept; the transform is finer by
    the scale.
    """
    from geomoe import pipeline
    from geomoe.models import load

    loaded = load(model, scale)
    if dry_run:
        forecast = pipeline.forecast_upscale(
            src,
            dst,
            model=loaded,
            scale=scale,
            experts=experts,
            bands=bands,
            tile=tile,
            device=device,
            memory=memory,
            overwrite=overwrite,
        )
        click.echo("\n".join(_forecast_lines(forecast)))
        return
    report = pipeline.upscale(
        src,
        dst,
        model=loaded,
        scale=scale,
        experts=experts,
        bands=bands,
        tile=tile,
        device=device,
        memory=memory,
        overwrite=overwrite,
        progress=terminal_progress("tiles"),
    )
    width, height = report.plan.output_size
    for note in report.plan.notes:
        click.echo(note)
    click.echo(f"{report.output}: {width} x {height}, bands {', '.join(report.plan.names)}, by {loaded.name}")
    if report.experts:
        click.echo(f"{report.experts}: which expert drew each pixel")


def _forecast_lines(forecast: Forecast) -> list[str]:
    from geomoe.raster.target import in_bytes

    plan = forecast.plan
    return [
        f"input    {plan.size[0]} x {plan.size[1]}, {plan.dtype}",
        f"output   {plan.output_size[0]} x {plan.output_size[1]}, {plan.dtype}",
        f"bands    {', '.join(plan.names)}",
        *(f"note     {note}" for note in plan.notes),
        f"tiles    {plan.tiles} of {plan.tile} x {plan.tile} input pixels, {plan.passes} runs of the model",
        f"time     about {in_time(forecast.seconds)}, tiles done at a time: {plan.workers}",
        f"memory   about {in_bytes(forecast.memory_bytes)}",
        f"disk     about {in_bytes(forecast.output_bytes)} when done, "
        f"{in_bytes(plan.scratch_bytes + forecast.output_bytes)} while it runs "
        f"(at most {in_bytes(plan.scratch_bytes + plan.output_bytes)})",
        f"learned  by doing {forecast.tried} of the tiles",
        "nothing was written (--dry-run)",
    ]


@click.command()
@click.argument("scene")
@click.option("--scale", type=int, default=4, show_default=True, help="For what would be done.")
@click.option(
    "--model", default=_DEFAULT_MODEL, show_default=True, help="Name of a model, or a weights file."
)
@click.option("--bands", help="Names or 1-based numbers. All by default.")
def info(scene: str, scale: int, model: str, bands: str | None) -> None:
    """Say what is understood of SCENE: grid, bands, radiometry, validity, and what would be done."""
    from geomoe.models import load
    from geomoe.pipeline import describe_scene

    facts = describe_scene(scene, model=load(model, scale), scale=scale, bands=bands)
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")
