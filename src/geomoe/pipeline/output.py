"""One file of a job, and the pieces that it is made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geomoe.pipeline.tiles import Box
from geomoe.raster.write.metadata import CogMetadata
from geomoe.raster.write.target import Move, Target

__all__ = ["Output", "Piece", "begun_in", "read_json", "window_of"]

Piece = tuple[NDArray[np.generic], NDArray[np.bool_]]
"""Pixels ``[C, h, w]`` of one output, and which are valid, ``[h, w]``."""


@dataclass(frozen=True)
class Output:
    """One file of a job.

    Attributes:
        target: where it goes.
        meta: everything but the pixels.
        scale: its pixels along one of the scene.
        late: gives tags that are known when its tiles are done.
    """

    target: Target
    meta: CogMetadata
    scale: int
    late: Callable[[], Mapping[str, str]] = dict

    @property
    def moves(self) -> tuple[Move, ...]:
        """Of all its files: the GeoTIFF, its item, and of a map of classes their names."""
        return (*self.target.moves, *((self.target.names,) if self.meta.classes else ()))


def window_of(box: Box, scale: int) -> Window:
    """A rectangle of the scene on a grid ``scale`` times finer."""
    return Window(box.x * scale, box.y * scale, box.width * scale, box.height * scale)


def begun_in(folder: Path) -> Mapping[str, Any]:
    """The key of the job that was begun in a folder of the work; empty where none was."""
    return read_json(folder / "job.json") or {}


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; ``None`` where no JSON is, an empty one where it is something else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else {}
