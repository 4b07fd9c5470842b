"""What a scene, or many, would take, said without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from geomoe.cli.progress import terminal_progress
from geomoe.cli.say import say
from geomoe.cli.units import in_time
from geomoe.errors import GeomoeError

if TYPE_CHECKING:
    from geomoe.pipeline import Forecast, Request

__all__ = ["forecast_lines", "forecast_many", "listed_bands"]

_MANY_BANDS = 16


def listed_bands(names: Sequence[str]) -> str:
    """Bands by their names, or their number where they are many."""
    return f"bands {', '.join(names)}" if len(names) <= _MANY_BANDS else f"{len(names)} bands"


def forecast_many(requests: list[Request], processes: int | None) -> None:
    """Say what scenes would take; raises GeomoeError where some would not be made, or a disk is short."""
    from geomoe import pipeline
    from geomoe.raster.write.target import in_bytes

    bar, ahead = terminal_progress("headers"), len(requests)

    def heard() -> None:
        nonlocal ahead
        ahead -= 1
        bar.advance()
        if not ahead:
            say("trying a few tiles; this takes a minute or two", err=True)

    bar.start(len(requests))
    try:
        found = pipeline.forecast_many(requests, processes=processes, heard=heard)
    finally:
        bar.close()
    for outcome in (*found.refused, *found.empty):
        say(f"{outcome.request.src}: {outcome.message}", err=True)
    lines = [
        f"scenes   {found.scenes} to be made, {found.there} made already, {len(found.empty)} empty, "
        f"{len(found.refused)} refused"
    ]
    if found.scenes:
        each = f" for each of {found.processes} processes" if found.processes > 1 else ""
        lines += [
            f"tiles    {found.passes} runs of the model at most",
            f"time     about {in_time(found.seconds)} on this machine",
            f"memory   about {in_bytes(found.memory_bytes)}{each}",
            f"disk     about {in_bytes(found.output_bytes)} when done",
            f"learned  from tiles of {found.tried} of the scenes",
        ]
    say(*lines, "nothing was written (--dry-run)")
    short = [
        f"the disk of {folder} has {in_bytes(free)} free, and {in_bytes(wanted)} are wanted there"
        for folder, wanted, free in found.short
    ]
    if found.refused:
        short.insert(0, f"{len(found.refused)} of {len(requests)} scenes would not be made")
    if short:
        raise GeomoeError("; ".join(short))


def forecast_lines(forecast: Forecast, beside: Sequence[str] = ()) -> list[str]:
    """The same of one scene, and what is made of its map beside it."""
    from geomoe.raster.write.target import in_bytes

    plan = forecast.plan
    return [
        f"input    {plan.size[0]} x {plan.size[1]}, {plan.dtype}",
        f"output   {plan.output_size[0]} x {plan.output_size[1]}, {plan.output_dtype}",
        f"bands    {listed_bands(plan.names).removeprefix('bands ')}",
        *(f"note     {note}" for note in plan.notes),
        f"tiles    {plan.tiles} of {plan.tile} x {plan.tile} input pixels, "
        f"{plan.passes} runs of the model in {plan.precision}"
        + (f", blended over {2 * plan.overlap} pixels" if plan.overlap else ""),
        f"time     about {in_time(forecast.seconds)}, tiles done at a time: {plan.workers}",
        f"memory   about {in_bytes(forecast.memory_bytes)}",
        f"disk     about {in_bytes(forecast.output_bytes)} when done, "
        f"{in_bytes(plan.scratch_bytes + forecast.output_bytes)} while it runs "
        f"(at most {in_bytes(plan.scratch_bytes + plan.output_bytes)})",
        f"learned  by doing {forecast.tried} of the tiles",
        *beside,
        "nothing was written (--dry-run)",
    ]
