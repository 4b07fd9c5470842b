"""Lists of scenes, and what became of them."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geomoe.errors import GeomoeError
from geomoe.files import overlap, places, read_small, write_csv
from geomoe.raster.open import source_files
from geomoe.raster.stac import item_path
from geomoe.raster.stac_collection import MAX_ITEMS, read_collection

if TYPE_CHECKING:
    from geomoe.models.precision import AskedPrecision

__all__ = [
    "Outcome",
    "SceneTask",
    "Settings",
    "UnfinishedReport",
    "check_report",
    "read_manifest",
    "write_report",
]


_LAYERS = ("experts", "consistency", "reliability")
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SceneTask:
    """One line of a manifest.

    Attributes:
        src, dst: the scene, and where the result goes.
        experts, consistency, reliability: where these maps go, if anywhere.
        bands: names or 1-based numbers with commas; all if ``None``.
    """

    src: str
    dst: str
    experts: str | None = None
    consistency: str | None = None
    reliability: str | None = None
    bands: str | None = None


@dataclass(frozen=True)
class Settings:
    """What is the same for all scenes; see `upscale`.

    ``memory`` is for all processes of this machine together. Where ``weights`` is not empty, it is the hash
    that the weights must have wherever they are loaded (of ``auto`` the digest of all that may be chosen);
    ``reference`` likewise is the digest of what their router saw in training.
    """

    model: str = "auto"
    scale: int = 4
    tile: int | None = None
    device: str = "auto"
    memory: int | None = None
    overwrite: bool = False
    fallback: bool = False
    conserve: bool = False
    nodata: float | Literal["none"] | None = None
    precision: AskedPrecision = "auto"
    weights: str = ""
    reference: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a scene.

    Attributes:
        task: the line of the manifest.
        status: ``done``; ``there``: made before from this scene with these settings; ``empty``: it has no
            valid pixel, and nothing is made of it; ``busy``: another process is at it; ``failed``;
            ``waiting``: it has not ended.
        seconds: of the last attempt.
        resumed: tiles that an earlier process had done.
        attempts: how often it was tried.
        message: the error, in one line; of a scene that was made, what was decided of it.
        sign: where it is ``busy``, what changes as long as whoever is at it works.
    """

    task: SceneTask
    status: Literal["done", "there", "empty", "busy", "failed", "waiting"]
    seconds: float = 0.0
    resumed: int = 0
    attempts: int = 1
    message: str = ""
    sign: int = 0


def read_manifest(path: str | os.PathLike[str], scale: int = 4) -> list[SceneTask]:
    """The scenes of a CSV file, or the items of a STAC collection (``.json``).

    A CSV file has a header: ``src,dst`` and, where wanted, maps and ``bands``. Relative paths are
    relative to the folder of the file. The output of an item goes there too, named by its id:
    ``<id>_x<scale>.tif``.

    Raises:
        GeomoeError: no such file, another header, a line without ``src`` or ``dst``, two with one target, or
            items that cannot be listed.
    """
    path = Path(path).absolute()
    rows = _from_collection(path, scale) if path.suffix.lower() == ".json" else _from_csv(path)
    _refuse_harm(path, rows)
    if not rows:
        raise GeomoeError(f"{path} names no scene; expected lines src,dst below a header, or links to items")
    return [task for _, task in rows]


def _refuse_harm(path: Path, rows: Sequence[tuple[str, SceneTask]]) -> None:
    """Raise GeomoeError where one line would write what another writes, or what any of them reads."""
    targets: dict[tuple[object, ...], str] = {}
    writes: dict[Path, str] = {}
    for row, task in rows:
        for target in written(task):
            if (other := targets.setdefault(places(target)[0], row)) != row:
                raise GeomoeError(f"{path}, {row}: {target} is the target of {other}")
            writes[target] = row
    reads = {file: row for row, task in rows for file in source_files(task.src)}
    if found := overlap(writes, [*reads, path]):
        what = f"the scene of {reads[found[1]]}" if found[1] in reads else "the manifest"
        raise GeomoeError(f"{path}, {writes[found[0]]}: {found[0]} is {what}, or part of it")


def written(task: SceneTask) -> list[Path]:
    """Everything that is written of a scene beside the model's item: files, and an item with each."""
    given = [task.dst, *filter(None, (getattr(task, layer) for layer in _LAYERS))]
    files = [Path(os.path.realpath(file)) for file in given]
    return [*files, *map(item_path, files)]


def _from_collection(path: Path, scale: int) -> list[tuple[str, SceneTask]]:
    return [
        (f"item {i}", SceneTask(str(item), str(path.parent / f"{name}_x{scale}.tif")))
        for i, (name, item) in enumerate(read_collection(path), 1)
    ]


def _from_csv(path: Path) -> list[tuple[str, SceneTask]]:
    known = [field.name for field in fields(SceneTask)]
    try:
        text = read_small(path, _MAX_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = reader.fieldnames or []
        if not {"src", "dst"} <= {*header} <= {*known}:
            raise GeomoeError(
                f"{path} has columns {', '.join(header)[:200]}; expected src, dst, and perhaps "
                f"{', '.join((*_LAYERS, 'bands'))}"
            )
        rows = [(reader.line_num, row) for row in islice(reader, MAX_ITEMS + 1)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise GeomoeError(f"{path} is not a CSV file: {error}; expected a header src,dst") from error
    if len(rows) > MAX_ITEMS:
        raise GeomoeError(f"{path} has more than {MAX_ITEMS} lines; split it")
    tasks = []
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
        for name in ("src", "dst", *_LAYERS):
            if name in given and "://" not in given[name] and not given[name].startswith("/vsi"):
                given[name] = str(path.parent / given[name])
        tasks.append((f"line {line}", SceneTask(**given)))
    return tasks


def check_report(path: Path, manifest: Path, tasks: Sequence[SceneTask], model: str) -> None:
    """Raise GeomoeError where `write_report` could not write, or not without harm.

    To be told before the work, not after.

    Args:
        path: of the report.
        manifest: that the tasks are from.
        tasks: whose scenes are read, and whose outputs are written.
        model: its name, or the file of its weights.
    """
    taken = [file for task in tasks for file in (*source_files(task.src), *written(task))]
    if overlap([path], [manifest, Path(model), *taken]):
        raise GeomoeError(
            f"{path} is the manifest, the weights, or a file that the manifest names; give another --report"
        )
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK) or path.is_dir():
        raise GeomoeError(
            f"{path} cannot be written; give another --report, in a folder that can be written to"
        )


def write_report(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write a CSV file with a line for every scene.

    Raises:
        GeomoeError: if it cannot be written.
    """
    head = ["src", "dst", "status", "attempts", "seconds", "tiles_resumed", "message"]
    rows = [
        [o.task.src, o.task.dst, o.status, o.attempts, f"{o.seconds:.1f}", o.resumed, o.message]
        for o in outcomes
    ]
    write_csv(path, [head, *rows])


class UnfinishedReport:
    """The report of a night that goes on: whoever looks, or whatever ends it, finds the scenes until then.

    Args:
        path: of the file, which `write_report` replaces at the end.
        tasks: of the manifest. What has not ended is ``waiting``.
        every: seconds from one writing to the next at least; it is written when a scene ends, and at once.
    """

    def __init__(self, path: Path, tasks: Sequence[SceneTask], every: float = 10.0) -> None:
        self._path, self._every = path, every
        self._outcomes = {task: Outcome(task, "waiting", attempts=0) for task in tasks}
        self.write()

    def add(self, outcome: Outcome) -> None:
        """One more scene has ended."""
        self._outcomes[outcome.task] = outcome
        if time.monotonic() - self._written >= self._every:
            self.write()

    def write(self) -> None:
        """Write what there is. A report that cannot be written must not end the work."""
        self._written = time.monotonic()
        with contextlib.suppress(GeomoeError):
            write_report(self._path, list(self._outcomes.values()))
