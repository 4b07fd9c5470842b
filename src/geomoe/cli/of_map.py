"""What `geomoe predict` makes of a map of classes when the map is there: whether it can, before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geomoe.errors import GeomoeError

__all__ = ["check_of_map", "is_made"]

_OF_MANY = ("manifest", "processes", "scheduler", "retries", "scene_timeout", "report", "dry_run")


def is_made(src: str, dst: str, **given: Any) -> bool:
    """Whether a map that is there already is the one that would be made."""
    from geomoe.pipeline import Request
    from geomoe.pipeline.batch.scene import is_done

    if not Path(dst).exists() or given["overwrite"]:
        return False
    options = {name: value for name, value in given.items() if name not in _OF_MANY}
    return is_done(Request.of(src, dst, **options))


def check_of_map(
    wanted: Mapping[str, Path], read: Sequence[str | Path], given: Mapping[str, Any], classes: Sequence[str]
) -> None:
    """Refuse what could not be written once the map is there, which may take hours."""
    from geomoe.evaluation.figures import check_target
    from geomoe.files import overlap, writable_place
    from geomoe.models import load
    from geomoe.raster.vectors.strips import find_pyogrio

    overwrite = given["overwrite"]
    for name, path in wanted.items():
        if name == "--picture":
            check_target(path, Path(given["src"]), (given["model"], given["dst"]), overwrite=overwrite)
            continue
        ending = ".gpkg" if name == "--vectors" else ".csv"
        if path.suffix.lower() != ending:
            raise GeomoeError(f"{path} must end in {ending}")
        others = [other for other in wanted.values() if other is not path]
        if overlap([path], [*map(Path, read), *others]):
            raise GeomoeError(f"{path} is among what is read or written; give {name} another file")
        if path.exists() and not overwrite:
            raise GeomoeError(f"{path} exists; use --overwrite to replace it")
        writable_place(path)
    contract = load(given["model"]).contract
    contract.expect("classes", given["model"], f", for {next(iter(wanted))}")
    known = [name for output in contract.outputs.values() for name in output.classes]
    for name in classes:
        if name not in known:
            raise GeomoeError(f"{given['model']} has no class {name!r}; it has: {', '.join(known)}")
    if "--vectors" in wanted:
        find_pyogrio("polygons")
