"""Lists of scenes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from geomoe.errors import GeomoeError
from geomoe.files import overlap, places, read_small
from geomoe.pipeline.layers import LAYERS
from geomoe.pipeline.request import Request
from geomoe.raster.formats.open import source_files
from geomoe.raster.stac.collection import MAX_ITEMS, read_collection
from geomoe.raster.write.target import item_path

__all__ = ["read_manifest", "written"]

_COLUMNS = ("src", "dst", "after", *LAYERS, "bands")
_MAX_BYTES = 64 * 2**20


def read_manifest(path: str | os.PathLike[str], **options: Any) -> list[Request]:
    """Requests for the scenes of a CSV file, or for the items of a STAC collection (``.json``).

    A CSV file has a header: ``src,dst`` and, where wanted, ``after``, maps and ``bands``. Relative paths are
    relative to the folder of the file. The output of an item goes there too, named by its id:
    ``<id>_x<scale>.tif``, or ``<id>_predicted.tif`` where no scale was asked for.

    Args:
        path: of the file.
        options: of all scenes: ``model``, ``scale`` and whatever else a `Request` has.

    Raises:
        GeomoeError: no such file, another header, a line without ``src`` or ``dst``, two with one target, or
            items that cannot be listed.
    """
    path = Path(path).absolute()
    found = _from_collection(path, options) if path.suffix.lower() == ".json" else _from_csv(path)
    rows = [(row, Request.of(**given, **options)) for row, given in found]
    _refuse_harm(path, rows)
    if not rows:
        raise GeomoeError(f"{path} names no scene; expected lines src,dst below a header, or links to items")
    return [request for _, request in rows]


def _refuse_harm(path: Path, rows: Sequence[tuple[str, Request]]) -> None:
    """Raise GeomoeError where one line would write what another writes, or what any of them reads."""
    targets: dict[tuple[object, ...], str] = {}
    writes: dict[Path, str] = {}
    for row, request in rows:
        for target in written(request):
            if (other := targets.setdefault(places(target)[0], row)) != row:
                raise GeomoeError(f"{path}, {row}: {target} is the target of {other}")
            writes[target] = row
    reads = {
        file: row for row, request in rows for source in request.sources for file in source_files(source)
    }
    if found := overlap(writes, [*reads, path]):
        what = f"the scene of {reads[found[1]]}" if found[1] in reads else "the manifest"
        raise GeomoeError(f"{path}, {writes[found[0]]}: {found[0]} is {what}, or part of it")


def written(request: Request) -> list[Path]:
    """Everything that is written of a scene beside the model's item: files, and an item with each."""
    files = [Path(os.path.realpath(file)) for file in request.places.values()]
    return [*files, *map(item_path, files)]


def _from_collection(path: Path, options: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    scale = options.get("scale", Request.scale)
    ending = "predicted" if scale is None else f"x{scale}"
    return [
        (f"item {i}", {"src": str(item), "dst": str(path.parent / f"{name}_{ending}.tif")})
        for i, (name, item) in enumerate(read_collection(path), 1)
    ]


def _from_csv(path: Path) -> list[tuple[str, dict[str, str]]]:
    try:
        text = read_small(path, _MAX_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = reader.fieldnames or []
        if not {"src", "dst"} <= {*header} <= {*_COLUMNS}:
            raise GeomoeError(
                f"{path} has columns {', '.join(header)[:200]}; expected src, dst, and perhaps "
                f"{', '.join(_COLUMNS[2:])}"
            )
        rows = [(reader.line_num, row) for row in islice(reader, MAX_ITEMS + 1)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise GeomoeError(f"{path} is not a CSV file: {error}; expected a header src,dst") from error
    if len(rows) > MAX_ITEMS:
        raise GeomoeError(f"{path} has more than {MAX_ITEMS} lines; split it")
    found = []
    for line, row in rows:
        given = {
            name: value.strip() for name, value in row.items() if isinstance(value, str) and value.strip()
        }
        if None in row or not {"src", "dst"} <= {*given}:
            raise GeomoeError(
                f"{path}, line {line}: expected a value for src and dst, and none beyond the header"
            )
        if any("\0" in value for value in given.values()):
            raise GeomoeError(f"{path}, line {line}: holds a byte of zero; expected text")
        for name in ("src", "dst", "after", *LAYERS):
            if name in given and "://" not in given[name] and not given[name].startswith("/vsi"):
                given[name] = str(path.parent / given[name])
        found.append((f"line {line}", given))
    return found
