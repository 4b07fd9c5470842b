"""``geomoe data``: the data sets that are known, and what a folder is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from geomoe.cli.progress import told
from geomoe.cli.say import say, say_table
from geomoe.errors import GeomoeError
from geomoe.files import write_text
from geomoe.printable import counted

if TYPE_CHECKING:
    from geomoe.data.datasets import DataSet

__all__ = ["LEAKS", "data"]

LEAKS = 3
"""Status where something was found; 1 is bad input."""


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--leakage", is_flag=True, help="List images that parts of the split share; status 3 for any.")
@click.option(
    "--test", type=click.Path(path_type=Path), help="With --leakage: test images outside of FOLDER."
)
@click.option("--json", "out", type=click.Path(path_type=Path),
              help="With --leakage: write the pairs to this file; - for standard output.")  # fmt: skip
@click.option(
    "--make", metavar="NAME", help="Write a data set that is made, such as radar_targets, to FOLDER."
)
@click.option(
    "--of", "source", type=click.Path(path_type=Path),
    help="With --make: what it is made of; burns of a GeoTIFF of before, with red, green, blue and near "
    "infrared, crowns of the folder of IDTReeS, radar_optical of the truth of a pair, NAME_gt, "
    "land_cover of the folder of five_places and landsat_tiles.",
)  # fmt: skip
def data(
    folder: Path | None,
    leakage: bool,
    test: Path | None,
    out: Path | None,
    make: str | None,
    source: Path | None,
) -> None:
    """List data sets that are known by their folders, with source and terms; or say what FOLDER holds.

    Others do as well: any folder of images, or of one for each class, images with masks, pairs of two dates,
    a cube with labels.
    With --leakage, near duplicates and ground that train, validation and test share.
    """
    from geomoe.data.datasets import DATA_SETS, find_data_set

    if leakage:
        if make is not None:
            raise GeomoeError("--make and --leakage: choose one")
        if folder is None:
            raise GeomoeError("--leakage: give the folder of the data")
        _leakage(folder, test, out)
        return
    if test is not None or out is not None:
        raise GeomoeError("--test and --json go with --leakage")
    if make is not None:
        makers = {one.name: one for one in DATA_SETS.values() if one.make or one.make_of}
        if make not in makers:
            raise GeomoeError(f"--make {make}: of those that are known these are made: {', '.join(makers)}")
        if folder is None:
            raise GeomoeError("--make: give a new folder for the data")
        _make(makers[make], folder, source)
    elif source is not None:
        raise GeomoeError("--of goes with --make")
    if folder is None:
        table = Table("name", "kind", "split", "sensor", "gsd", "source", "terms", box=None, pad_edge=False)
        for one in DATA_SETS.values():
            gsd = "" if one.gsd is None else f"{one.gsd:g} m"
            split = "published" if one.published else "drawn"
            table.add_row(one.name, one.kind, split, one.sensor or "", gsd, one.source, one.terms)
        say_table(table)
        return
    if not folder.exists():
        raise GeomoeError(f"{folder} does not exist; give a folder, or the file of a cube")
    known = find_data_set(folder)
    if known is None:
        say(f"{folder}: none of the data sets that are known; {_described(folder)}")
        return
    facts = {
        "name": known.name,
        "kind": known.kind,
        "sensor": known.sensor or "",
        "gsd": "" if known.gsd is None else f"{known.gsd:g} m",
        "split": known.split or "",
        "classes": "; ".join(known.legend.names) if known.legend else "",
        "source": known.source,
        "terms": known.terms,
    }
    say(*(f"{name:<8} {value}" for name, value in facts.items() if value))


def _make(known: DataSet, folder: Path, source: Path | None) -> None:
    if (source is None) != (known.make_of is None):
        raise GeomoeError(
            f"--make {known.name}: give what it is made of, by --of PATH"
            if source is None
            else f"--make {known.name} is made of nothing that is given; leave out --of"
        )
    if known.make_of is not None and source is not None:
        if said := known.make_of(folder, source):
            say(f"{folder}: {said}")
    elif known.make is not None:
        known.make(folder)


def _leakage(folder: Path, test: Path | None, out: Path | None) -> None:
    """One line for each pair; ends with status 3 where two parts share an image or ground."""
    from geomoe.data.leakage import find_leaks, parts_of

    with told("images") as progress:
        found = find_leaks(parts_of(folder, test), progress)
    text = json.dumps(asdict(found), indent=1)
    if str(out) == "-":
        say(*text.split("\n"))
    else:
        if out is not None:
            write_text(out, f"{text}\n")
        for leak in (*found.leaks, *found.within):
            what = (
                f"share {leak.value:.0%} of the ground" if leak.kind == "footprint" else f"r {leak.value:.3f}"
            )
            how = f", {leak.how}" if leak.how else ""
            say(f"{leak.kind}  {leak.parts[0]} {leak.names[0]}  {leak.parts[1]} {leak.names[1]}  {what}{how}")
    for line in found.unread:
        say(f"geomoe: note: {line}", err=True)
    parts = ", ".join(f"{number} of {part}" for part, number in found.images.items())
    placed = f"{found.placed} with a place on Earth" if found.placed else "none with a place on Earth"
    say(
        f"{parts}, {placed}: {counted(len(found.leaks), 'pair')} across parts, "
        f"{counted(len(found.within), 'duplicate')} within one",
        err=True,
    )
    if found.leaks:
        sys.exit(LEAKS)


def _described(folder: Path) -> str:
    """What a folder may be used as; raises GeomoeError for one without images."""
    from geomoe.data.class_folders import class_names
    from geomoe.data.cubes import find_cube
    from geomoe.data.dates import dated_files
    from geomoe.data.images import find_images
    from geomoe.data.masks import masked_files
    from geomoe.data.super_resolution.paired import paired_folders

    if find_cube(folder) is not None:
        return "a cube with labels"
    if paired_folders(folder) is not None:
        return "folders of pairs that two sensors measured"
    if pairs := dated_files(folder):
        return f"{counted(len(pairs), 'pair')} of two dates, with what changed"
    ways: dict[str, Callable[[Path], Sequence[object]]] = {
        "images with masks": masked_files,
        "classes, a folder each": class_names,
    }
    for words, ask in ways.items():
        with suppress(GeomoeError):
            return f"{len(ask(folder))} {words}"
    return counted(len(find_images(folder)), "image")
