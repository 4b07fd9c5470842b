"""How a table came to be: what its answers depend on, in the file itself or beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from geomoe.errors import GeomoeError
from geomoe.files import atomic_write, csv_text
from geomoe.models.precision import Precision
from geomoe.pipeline.history import geomoe_version
from geomoe.pipeline.runner import Predictor, hardware, options_of
from geomoe.raster.stac.item import sha256

__all__ = ["image_digests", "made_by", "record_path", "write_table"]


def record_path(table: Path) -> Path:
    """The file beside a CSV that says how it was made."""
    return table.with_name(f"{table.name}.json")


def made_by(model: Predictor, device: torch.device, precision: Precision) -> dict[str, Any]:
    """What answers depend on but for the samples, as items of maps say it."""
    return {
        "version": geomoe_version(),
        "model": model.name,
        "weights": model.hash,
        "options": options_of(model),
        "torch": torch.__version__,
        "precision": precision,
        "device": hardware(device),
    }


def write_table(path: Path, rows: Sequence[Sequence[object]], made: Mapping[str, Any]) -> None:
    """Write a CSV and what made it, which has its SHA-256: neither before both are on the disk."""
    text = csv_text(rows).encode("utf-8", "backslashreplace")
    record = {"table": {"name": path.name, "sha256": hashlib.sha256(text).hexdigest()}, **made}
    with atomic_write(record_path(path)) as beside, atomic_write(path) as table:
        beside.write(json.dumps(record, indent=1).encode("utf-8", "backslashreplace"))
        table.write(text)


def image_digests(root: Path, files: Sequence[Path]) -> list[dict[str, str]]:
    """Name below ``root`` and SHA-256 of each image; raises GeomoeError where one cannot be read."""
    try:
        return [{"name": file.relative_to(root).as_posix(), "sha256": sha256(file)} for file in files]
    except OSError as error:
        raise GeomoeError(f"{error.filename} cannot be read: {error.strerror}; check the path") from error
