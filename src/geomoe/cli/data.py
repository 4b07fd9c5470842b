"""``geomoe data``: the data sets that are known, and what a folder is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import click
from rich.table import Table

from geomoe.cli.say import say, say_table
from geomoe.errors import GeomoeError
from geomoe.printable import counted

__all__ = ["data"]


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def data(folder: Path | None) -> None:
    """List data sets that are known by their folders, with source and terms; or say what FOLDER holds.

    Others do as well: any folder of images, or of one for each class, images with masks, a cube with labels.
    """
    from geomoe.data.datasets import DATA_SETS, find_data_set

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


def _described(folder: Path) -> str:
    """What a folder may be used as; raises GeomoeError for one without images."""
    from geomoe.data.class_folders import class_names
    from geomoe.data.cubes import find_cube
    from geomoe.data.images import find_images
    from geomoe.data.masks import masked_files
    from geomoe.data.super_resolution.paired import paired_folders

    if find_cube(folder) is not None:
        return "a cube with labels"
    if paired_folders(folder) is not None:
        return "folders of pairs that two sensors measured"
    ways: dict[str, Callable[[Path], Sequence[object]]] = {
        "images with masks": masked_files,
        "classes, a folder each": class_names,
    }
    for words, ask in ways.items():
        with suppress(GeomoeError):
            return f"{len(ask(folder))} {words}"
    return counted(len(find_images(folder)), "image")
