"""What became of scenes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geomoe.errors import GeomoeError
from geomoe.files import overlap, write_csv
from geomoe.pipeline.batch.manifest import written
from geomoe.pipeline.request import Request
from geomoe.raster.formats.open import source_files

__all__ = ["Outcome", "UnfinishedReport", "check_report", "write_report"]


@dataclass(frozen=True)
class Outcome:
    """What became of a scene.

    Attributes:
        request: for the scene.
        status: ``done``; ``there``: made before from this scene with these settings; ``empty``: it has no
            valid pixel, and nothing is made of it; ``busy``: another process is working on it; ``failed``;
            ``waiting``: it has not ended.
        seconds: of the last attempt.
        resumed: tiles that an earlier process, or an earlier attempt, had done.
        attempts: how often it was tried.
        message: the error, in one line; of a scene that was made, what was decided of it.
        sign: where it is ``busy``, what changes as long as whoever works on it is alive.
    """

    request: Request
    status: Literal["done", "there", "empty", "busy", "failed", "waiting"]
    seconds: float = 0.0
    resumed: int = 0
    attempts: int = 1
    message: str = ""
    sign: int = 0


def check_report(path: Path, manifest: Path, requests: Sequence[Request], model: str) -> None:
    """Raise GeomoeError where `write_report` could not write, or not without harm.

    To be told before the work, not after.

    Args:
        path: of the report.
        manifest: that the requests are from.
        requests: whose scenes are read, and whose outputs are written.
        model: its name, or the file of its weights.
    """
    read = [file for request in requests for source in request.sources for file in source_files(source)]
    taken = [*read, *(file for request in requests for file in written(request))]
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
        [o.request.src, o.request.dst, o.status, o.attempts, f"{o.seconds:.1f}", o.resumed, o.message]
        for o in outcomes
    ]
    write_csv(path, [head, *rows])


class UnfinishedReport:
    """The report of a run in progress: whoever looks, or whatever ends it, finds the scenes until then.

    Args:
        path: of the file, which `write_report` replaces at the end.
        requests: of the manifest. What has not ended is ``waiting``.
        every: seconds from one writing to the next at least; it is written when a scene ends, and at once.
    """

    def __init__(self, path: Path, requests: Sequence[Request], every: float = 10.0) -> None:
        self._path, self._every = path, every
        self._outcomes = {str(r.dst): Outcome(r, "waiting", attempts=0) for r in requests}
        self.write()

    def add(self, outcome: Outcome) -> None:
        """One more scene has ended."""
        self._outcomes[str(outcome.request.dst)] = outcome
        if time.monotonic() - self._written >= self._every:
            self.write()

    def write(self) -> None:
        """Write what there is. A report that cannot be written must not end the work."""
        self._written = time.monotonic()
        with contextlib.suppress(GeomoeError):
            write_report(self._path, list(self._outcomes.values()))
