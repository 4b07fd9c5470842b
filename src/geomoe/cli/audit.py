"""``geomoe audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from geomoe.cli.progress import audit_progress
from geomoe.cli.say import say
from geomoe.errors import GeomoeError
from geomoe.files import overlap

if TYPE_CHECKING:
    from geomoe.data.split import Split

__all__ = ["audit"]


@click.command()
@click.argument("model")
@click.option("--data", "root", required=True, type=click.Path(path_type=Path), help="Folder of the samples.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the report.")
@click.option(
    "--split",
    type=click.Choice(["train", "fit", "validation", "test"]),
    default="test",
    show_default=True,
    help="Part of the data.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    help="At most so many samples, spread evenly over their list.  [default: all]",
)
@click.option(
    "--facts",
    metavar="FILE.csv",
    type=click.Path(path_type=Path),
    help="What else is known of samples: a column name, and one for each of sensor, region, date ...",
)
@click.option(
    "--against",
    metavar="MODEL",
    multiple=True,
    help="Other weights, such as those of another seed: their routing, roles of experts and quality beside "
    "those of MODEL, experts matched. May be given several times.",
)
@click.option(
    "--benchmark",
    metavar="SCORES.csv",
    type=click.Path(path_type=Path),
    help="Scores that geomoe benchmark wrote for MODEL and its twins: whether the mixture is worth having.",
)
@click.option("--only", default="", metavar="SECTION,...", help="These sections alone.  [default: all]")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of all that is drawn."
)
@click.option("--skip-corrupt", is_flag=True, help="Leave out samples that cannot be read, and say which.")
@click.option("--overwrite", is_flag=True, help="Replace an existing report.")
def audit(
    model: str,
    root: Path,
    out: Path,
    split: Split,
    images: int | None,
    facts: Path | None,
    against: tuple[str, ...],
    benchmark: Path | None,
    only: str,
    seed: int,
    skip_corrupt: bool,
    overwrite: bool,
) -> None:
    """Say whether the routing of MODEL, a model by name or a weights file, earns its keep.

    Nothing is trained: the experts that were chosen are counted, and the plans of the router are replaced by
    others (random, shuffled, constant, the best that there are) to see what that costs.
    """
    from geomoe.audit.report import check_folder, write_report
    from geomoe.audit.request import Request
    from geomoe.audit.sections import find_sections

    names = tuple(name.strip() for name in only.split(",") if name.strip())
    find_sections(names)  # raises, before anything is read
    check_folder(out, overwrite=overwrite)
    if overlap([out], [Path(model), root]):
        raise GeomoeError(f"{out} is or holds what is audited; give another --out")
    asked = Request(
        model,
        str(root),
        split,
        images,
        names,
        seed,
        skip_corrupt,
        None if facts is None else str(facts),
        against,
        None if benchmark is None else str(benchmark),
    )
    subject = asked.subject(lambda line: say(f"geomoe: note: {line}", err=True))
    with audit_progress() as progress:
        found = asked.audit(subject, progress)
    report = write_report(found, out)
    say(f"{found.verdict.level}: {found.verdict.text}", str(report))
