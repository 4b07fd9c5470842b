"""How a table came to be: what its answers depend on, in the file itself or beside it; without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geomoe.errors import GeomoeError
from geomoe.files import atomic_write, csv_text, read_small, write_text
from geomoe.raster.stac.item import sha256

__all__ = ["ENDINGS", "image_digests", "read_table", "record_path", "write_geojson", "write_table"]

ENDINGS = (".csv", ".geojson")
_MAX_BYTES = 2**30
_KEY = "geomoe"
"""Of the record in a GeoJSON."""


def record_path(table: Path) -> Path:
    """The file beside a CSV that says how it was made."""
    return table.with_name(f"{table.name}.json")


def write_table(path: Path, rows: Sequence[Sequence[object]], made: Mapping[str, Any]) -> None:
    """Write a CSV and what made it, which has its SHA-256: neither before both are on the disk."""
    text = csv_text(rows).encode("utf-8", "backslashreplace")
    record = _sealed(path, text, made)
    with atomic_write(record_path(path)) as beside, atomic_write(path) as table:
        beside.write(json.dumps(record, indent=1).encode("utf-8", "backslashreplace"))
        table.write(text)


def write_geojson(path: Path, features: Sequence[Mapping[str, Any]], made: Mapping[str, Any]) -> None:
    """Write features with what made them, which has their SHA-256."""
    record = _sealed(path, json.dumps(features).encode(), made)
    write_text(path, json.dumps({"type": "FeatureCollection", _KEY: record, "features": features}))


def read_table(path: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """A table, what made it by its record, and what is not as it was written, a sentence each.

    Args:
        path: of the table, or of the record beside a CSV.

    Raises:
        GeomoeError: a table or record that cannot be read, or none of geomoe's.
    """
    if path.suffix.lower() == ".json":
        path = path.with_suffix("")
    if path.suffix.lower() == ".csv":
        if not record_path(path).exists():
            raise GeomoeError(f"{record_path(path)} is not there; expected what made the table beside it")
        record: object = _object(record_path(path))
        text = read_small(path, _MAX_BYTES)
    else:
        found = _object(path)
        record = found.get(_KEY)
        text = json.dumps(found.get("features")).encode()
    table = record.get("table") if isinstance(record, dict) else None
    if not isinstance(table, dict) or not isinstance(record, dict):
        raise GeomoeError(f"{path.name} was not made by geomoe: nothing says what made it")
    faults = []
    if table.get("sha256") != hashlib.sha256(text).hexdigest():
        faults.append("its SHA-256 is not the one of its record: the table or its record was changed")
    if record.get("seal") != _seal(record):
        faults.append("its record is not as it was written: something in it was changed")
    return path, record, faults


def image_digests(root: Path, files: Sequence[Path]) -> list[dict[str, str]]:
    """Name below ``root`` and SHA-256 of each image; raises GeomoeError where one cannot be read."""
    try:
        return [{"name": file.relative_to(root).as_posix(), "sha256": sha256(file)} for file in files]
    except OSError as error:
        raise GeomoeError(f"{error.filename} cannot be read: {error.strerror}; check the path") from error


def _sealed(path: Path, text: bytes, made: Mapping[str, Any]) -> dict[str, Any]:
    """What made a table, with the SHA-256 of the table and of all that it says itself."""
    record = {"table": {"name": path.name, "sha256": hashlib.sha256(text).hexdigest()}, **made}
    return {**record, "seal": _seal(record)}


def _seal(record: Mapping[str, Any]) -> str:
    said = {name: value for name, value in record.items() if name != "seal"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_small(path, _MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise GeomoeError(f"{path.name} cannot be read as JSON; write the table again") from error
    if not isinstance(found, dict):
        raise GeomoeError(f"{path.name} holds no JSON object; write the table again")
    return found
