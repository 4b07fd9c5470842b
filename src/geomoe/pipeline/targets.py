"""What is wrong with the files of a job, as far as it can be told without a model.

Nothing here imports torch, so that the command line tells it before the seconds that torch takes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from geomoe.errors import GeomoeError
from geomoe.files import overlap
from geomoe.pipeline.request import Request
from geomoe.raster.formats.open import source_files
from geomoe.raster.read.bands import select_bands
from geomoe.raster.read.checks import local_file
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.target import Target

__all__ = ["refuse_early", "refuse_overlap", "targets_of"]


def targets_of(places: Mapping[str, str | os.PathLike[str]], *, overwrite: bool) -> list[Target]:
    """Where the files of a job go, the main one first.

    Args:
        places: of the files, by what each is.
        overwrite: whether they may exist.

    Raises:
        GeomoeError: if one cannot be written, or two are one.
    """
    targets = [Target(path, overwrite=overwrite) for path in places.values()]
    for (name, target), (other, twin) in combinations(zip(places, targets, strict=True), 2):
        if target.path == twin.path:
            raise GeomoeError(f"{name} and {other} are both {twin.path}; give them two names")
        if target.item == twin.item:
            raise GeomoeError(
                f"{name} and {other} are both {twin.item.name[:-10]}, but for their endings; "
                "give them two names"
            )
    return targets


def refuse_overlap(
    targets: Sequence[Target],
    scene: Scene | None,
    sources: Sequence[str | os.PathLike[str]],
    *,
    weights: Path | None = None,
    item: str | None = None,
) -> None:
    """Raise GeomoeError where an output is also an input, or exists and may not be replaced.

    Args:
        targets: of the job.
        scene: if it is open.
        sources: as they were given.
        weights: their file.
        item: name of the model's item, which goes into each folder.
    """
    writes = [file for t in targets for file in t.writes]
    if item is not None:
        writes += [target.path.with_name(item) for target in targets]
    given = [file for source in sources for file in source_files(source)]
    reads = [*given, *(scene.files if scene else ()), *([weights] if weights else [])]
    found = overlap(writes, reads)
    if found is not None:
        what = "the file of the weights" if found[1] == weights else "the input itself"
        raise GeomoeError(f"{found[0]} is {what}, or holds it; write to another file")
    if not targets[0].folder.exists():  # else it may be our own finished output
        for target in targets:
            target.refuse_what_stands()


def refuse_early(request: Request, *, writes: bool = True) -> None:
    """Raise GeomoeError for a scene or bands that cannot be read, or files that cannot be written.

    Args:
        request: with a model that is not loaded yet.
        writes: whether anything is to be written.
    """
    scene = None
    # To open a zip is to unpack it, which is done once.
    if all(local_file(path).suffix.lower() != ".zip" for path in request.sources):
        with request.open() as scene:
            for part in scene.parts:
                select_bands(part, request.bands, 1)
    if writes:
        refuse_overlap(targets_of(request.places, overwrite=request.overwrite), scene, request.sources)
