"""``geomoe reproduce``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from geomoe.cli.progress import audit_progress
from geomoe.cli.say import say
from geomoe.errors import GeomoeError
from geomoe.printable import counted

__all__ = ["reproduce"]

_SHOWN = 20


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--data", help="Folder of the samples.  [default: that of the report]")
@click.option("--model", help="The weights, if they are elsewhere now.  [default: those of the report]")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    help="By which numbers may differ, relative to the larger one.  [default: 0 on the same machine and "
    "libraries, else 0.001]",
)
def reproduce(manifest: Path, data: str | None, model: str | None, tolerance: float | None) -> None:
    """Do the audit of MANIFEST, a report's manifest.json or its folder, again, and compare every number.

    Times are not compared. Other weights or samples than those of the report are refused before the work.
    Exits with 0 where all is the same, with 1 where something is not.
    """
    import torch

    from geomoe.audit.reproduce import differences, read_record

    record = read_record(manifest)
    request = record.request
    request = replace(request, data=data or request.data, model=model or request.model)
    # Sums depend on how many threads share them.
    torch.set_num_threads(int(record.manifest["machine"]["threads"]))
    allowed = record.tolerance if tolerance is None else tolerance
    subject = request.subject(lambda line: say(f"geomoe: note: {line}", err=True))
    record.expect(subject)
    with audit_progress() as progress:
        found = request.audit(subject, progress)
    other, compared = differences(record, found, allowed)
    how = "exactly" if not allowed else f"within {allowed:g} of the larger one"
    if not other:
        say(f"{counted(compared, 'value')} compared, all the same {how}")
        return
    say(*map(str, other[:_SHOWN]))
    if len(other) > _SHOWN:
        say(f"and {len(other) - _SHOWN} more")
    raise GeomoeError(f"{len(other)} of {counted(compared, 'value')} are not as in the report, {how}")
