"""``geomoe verify``."""

from __future__ import annotations

import click

from geomoe.cli.say import say

__all__ = ["verify"]


@click.command()
@click.argument("outputs", nargs=-1, required=True, metavar="OUTPUT...")
@click.option(
    "--source",
    metavar="SRC",
    help="Also check that OUTPUT was made of this scene, or folder of images, as it is now.",
)
@click.option("--after", metavar="SRC", help="Of --source: the scene of the second date.")
@click.option(
    "--weights", metavar="NAME", help="Also check that OUTPUT was made by these weights: name or file."
)
def verify(outputs: tuple[str, ...], source: str | None, after: str | None, weights: str | None) -> None:
    """Check that OUTPUT is as geomoe made it, and say of what it was made.

    OUTPUT is a GeoTIFF that geomoe wrote, or the .stac.json beside it. The file is compared with its item,
    and both with the tags inside the file and with the model's item. Or it is a table, .csv or .geojson,
    which is compared with the record of what made it. With many, a line for each.
    """
    from geomoe.errors import GeomoeError
    from geomoe.pipeline.verification import verify

    if after is not None and source is None:
        raise click.UsageError("--after is of --source")
    if len(outputs) == 1:
        found = verify(outputs[0], source=source, after=after, weights=weights)
        width = max(len(name) for name in found.facts)
        for name, fact in found.facts.items():
            say(f"{name:<{width}}  {fact}")
        if found.faults:
            raise GeomoeError(f"{found.path.name}: {'; '.join(found.faults)}")
        say(f"{'verified':<{width}}  it is as it was made")
        return
    wrong = 0
    for output in outputs:
        try:
            faults = verify(output, source=source, after=after, weights=weights).faults
        except GeomoeError as error:
            faults = (str(error),)
        wrong += bool(faults)
        say(f"{output}: {'; '.join(faults) or 'as it was made'}")
    if wrong:
        raise GeomoeError(f"{wrong} of {len(outputs)} files are not as they were made")
    say(f"{len(outputs)} files, all as they were made")
