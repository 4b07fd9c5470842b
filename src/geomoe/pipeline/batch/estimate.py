"""What many scenes will take: every header is read, and a few tiles of a few scenes are tried."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from geomoe.pipeline.batch.report import Outcome
from geomoe.pipeline.batch.scene import failed, is_done, ready
from geomoe.pipeline.batch.scenes import divided
from geomoe.pipeline.estimate import START, Forecast, forecast_job
from geomoe.pipeline.job import open_job
from geomoe.pipeline.plan import ScenePlan, prepared
from geomoe.pipeline.request import Request
from geomoe.raster.read.sample import refuse_empty
from geomoe.raster.write.cog import estimated_bytes

__all__ = ["ManyForecast", "forecast_many"]

_SCENES = 3
"""Of which tiles are tried: some 30 seconds each at most."""


@dataclass(frozen=True)
class ManyForecast:
    """Many scenes, and what was learned of them.

    Attributes:
        scenes: that are to be made.
        there: scenes that are made already.
        refused: what cannot be made, as far as headers and the tried tiles tell, status ``failed``.
        empty: scenes without a valid pixel, of which nothing would be made, status ``empty``.
        passes: runs of the model at most.
        processes: at a time.
        seconds: that all will take on the machine where this was learned.
        memory_bytes: the most that one process took for a tried scene.
        output_bytes: of all finished files.
        short: disks that are too small, a line for each: their folder, and what is wanted and free there.
        tried: scenes of which tiles were done.
    """

    scenes: int
    there: int
    refused: tuple[Outcome, ...]
    empty: tuple[Outcome, ...]
    passes: int
    processes: int
    seconds: float
    memory_bytes: int
    output_bytes: int
    short: tuple[tuple[str, int, int], ...]
    tried: int


@dataclass(frozen=True)
class _File:
    """An output: where, bytes of its pixels, and the most that it takes while it is made."""

    path: Path
    raw: int
    most: int


@dataclass(frozen=True)
class _Wanted:
    """A scene that is to be made, by its header."""

    request: Request
    plan: ScenePlan
    files: tuple[_File, ...]

    @property
    def raw(self) -> int:
        return sum(file.raw for file in self.files)


def forecast_many(
    requests: Sequence[Request], *, processes: int | None = None, heard: Callable[[], None] = lambda: None
) -> ManyForecast:
    """What `predict_many` would take on this machine with the same arguments; writes nothing.

    Scenes that were begun are counted whole.

    Args:
        requests: as for `predict_many`.
        processes: as for `predict_many`.
        heard: called after each scene whose header was read.

    Raises:
        GeomoeError: weights or a device that are not there.
    """
    shares, threads = divided(requests[0], len(requests), processes)
    refused: list[Outcome] = []
    with _threads(threads):
        wanted, there = _read_headers([replace(request, **shares[0]) for request in requests], refused, heard)
        tried = _try(wanted, refused)
    # A scene takes some seconds to open, the more for each of its tiles.
    passes = sum(scene.plan.passes for scene, _, _ in tried)
    rate = sum(seconds for _, _, seconds in tried) / passes if passes else 0.0
    raw = sum(scene.raw for scene, _, _ in tried)
    share = sum(forecast.output_bytes for _, forecast, _ in tried) / raw if raw else 0.0
    count = max(1, min(len(shares), len(wanted)))
    total = sum(scene.plan.passes for scene in wanted)
    largest = max((scene.plan.passes for scene in wanted), default=0)
    return ManyForecast(
        scenes=len(wanted),
        there=there,
        refused=tuple(outcome for outcome in refused if outcome.status == "failed"),
        empty=tuple(outcome for outcome in refused if outcome.status == "empty"),
        passes=total,
        processes=count,
        seconds=START + rate * max(total / count, largest) if wanted else 0.0,
        memory_bytes=max((forecast.memory_bytes for _, forecast, _ in tried), default=0),
        output_bytes=round(share * sum(scene.raw for scene in wanted)),
        short=tuple(_short(wanted, share, count)),
        tried=len(tried),
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read_headers(
    requests: Sequence[Request], refused: list[Outcome], heard: Callable[[], None]
) -> tuple[list[_Wanted], int]:
    wanted, there = [], 0
    for request in map(ready, requests):
        try:
            if is_done(request):
                there += 1
            else:
                wanted.append(_read_header(request))
        except Exception as error:  # as of the scene that is done
            refused.append(failed(request, error))
        heard()
    return wanted, there


def _read_header(request: Request) -> _Wanted:
    with prepared(request) as found:
        refuse_empty(found.scene, found.plan.bands)
    files = [
        _File(
            target.path,
            raw=math.prod((meta.width, meta.height, meta.count)) * np.dtype(meta.dtype).itemsize,
            most=sum(estimated_bytes(meta)),
        )
        for target, meta in zip(found.targets, found.metas, strict=True)
    ]
    return _Wanted(request, found.plan, tuple(files))


def _try(wanted: list[_Wanted], refused: list[Outcome]) -> list[tuple[_Wanted, Forecast, float]]:
    """Scenes, what was learned of each, and seconds that each will take; those that fail change lists."""
    tried: list[tuple[_Wanted, Forecast, float]] = []
    while wanted and not tried:
        for scene in _chosen(wanted):
            try:
                began = time.monotonic()
                with open_job(scene.request) as job:
                    opened = time.monotonic()
                    forecast = forecast_job(job)
            except Exception as error:
                wanted.remove(scene)
                refused.append(failed(scene.request, error))
                continue
            tried.append((scene, forecast, opened - began + forecast.seconds - START))
    return tried


def _chosen(wanted: Sequence[_Wanted]) -> list[_Wanted]:
    """Scenes in the middle of equal parts of the work, by size."""
    by_size = sorted(wanted, key=lambda scene: scene.plan.passes)
    behind = list(accumulate(scene.plan.passes for scene in by_size))
    places = [(2 * i + 1) * behind[-1] / (2 * _SCENES) for i in range(_SCENES)]
    numbers = {next(i for i, passed in enumerate(behind) if passed >= place) for place in places}
    return [by_size[i] for i in sorted(numbers)]


def _short(wanted: Sequence[_Wanted], share: float, at_hand: int) -> Iterator[tuple[str, int, int]]:
    """Disks on which the files do not fit: a folder, bytes wanted and bytes free.

    A scene at hand needs room for its scratch files and the largest that its outputs may become, the others
    for what they will be; what is replaced makes room.
    """
    of_disk: dict[int, list[list[_File]]] = defaultdict(list)
    for scene in wanted:
        by_disk: dict[int, list[_File]] = defaultdict(list)
        for file in scene.files:
            by_disk[file.path.parent.stat().st_dev].append(file)
        for disk, files in by_disk.items():
            of_disk[disk].append(files)
    for scenes in of_disk.values():
        scenes.sort(key=lambda files: -sum(file.most for file in files))
        most = sum(file.most for files in scenes[:at_hand] for file in files)
        rest = [file for files in scenes[at_hand:] for file in files]
        need = most + sum(share * file.raw - _size(file.path) for file in rest)
        folder = scenes[0][0].path.parent
        if need > (free := shutil.disk_usage(folder).free):
            yield str(folder), round(need), free


def _size(path: Path) -> int:
    return os.path.getsize(path) if path.exists() else 0
