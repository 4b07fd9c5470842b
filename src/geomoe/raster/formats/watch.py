"""Whether the files of a scene are still as they were when it was opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from geomoe.errors import GeomoeError
from geomoe.raster.formats.dates import DatedScene, digest_of_dates
from geomoe.raster.formats.open import source_files
from geomoe.raster.formats.sentinel2 import METADATA
from geomoe.raster.formats.stack import StackScene
from geomoe.raster.read.scene import Scene
from geomoe.raster.stac.item import sha256

__all__ = ["ChangedError", "Watch", "contents"]


class ChangedError(GeomoeError):
    """Files that changed while they were read: what was made of them is of no one state of them."""

    def __init__(self, files: Sequence[Path]) -> None:
        names = ", ".join(str(file) for file in files[:3])
        super().__init__(f"{names} changed while it was read; let it be finished, then start again")


class Watch:
    """The files of a scene by device, number, size and time of the last change.

    To be made before the scene is opened. Who writes into a mapped file, or sets the time back, is not seen.

    Args:
        paths: of the scene, or of both dates, as for `open_scene`.
    """

    def __init__(self, *paths: str | os.PathLike[str]) -> None:
        self._stamps = {file: _stamp(file) for path in paths for file in _files(path)}

    def changed(self) -> list[Path]:
        """Files that have changed since this was asked before, or since the watch began."""
        changed = []
        for file, stamp in self._stamps.items():
            if (now := _stamp(file)) != stamp:
                changed.append(file)
                self._stamps[file] = now
        return changed


def contents(scene: Scene) -> tuple[str, tuple[Mapping[str, str], ...]]:
    """The digest of a scene, and name and SHA-256 of each of its files."""
    if isinstance(scene, DatedScene):
        digests, sources = zip(*map(contents, scene.dates), strict=True)
        return digest_of_dates(digests), tuple(source for date in sources for source in date)
    digest = scene.digest()
    if not isinstance(scene, StackScene):
        return digest, ({"name": scene.path.name, "sha256": digest},)
    # The digest of a product is none of a file, also where all of it is in one zip.
    return digest, tuple({"name": file.name, "sha256": sha256(file)} for file in scene.files)


def _files(path: str | os.PathLike[str]) -> Iterator[Path]:
    for place in source_files(path):
        if any((place / name).is_file() for name in METADATA):  # else it may be a folder of anything
            yield from (file for file in place.rglob("*") if file.is_file())
        else:
            yield place


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
