"""What many scenes will take: every header is read, and a few tiles of a few scenes are tried."""

from __future__ import annotations

import math
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np

from geomoe.errors import GeomoeError
from geomoe.models import load
from geomoe.models.device import devices_of, pick_device
from geomoe.pipeline.forecast import START, Forecast, forecast_job
from geomoe.pipeline.job import open_job
from geomoe.pipeline.manifest import Outcome, SceneTask, Settings
from geomoe.pipeline.one import is_done, request_of
from geomoe.pipeline.plan import UpscalePlan, prepare
from geomoe.pipeline.request import Request
from geomoe.raster.open import open_scene

__all__ = ["ManyForecast", "forecast_many"]

_SCENES = 3
"""Of which tiles are tried: some 30 seconds each at most."""


@dataclass(frozen=True)
class ManyForecast:
    """Many scenes, and what was learned of them.

    Attributes:
        scenes: that are to be made.
        there: scenes that are made already.
        refused: what `upscale_many` would refuse before it works, status ``failed``.
        passes: runs of the model at most.
        seconds: that all will take on the machine where this was learned.
        memory_bytes: the most that one of the tried scenes took.
        output_bytes: of all finished files.
        short: disks that are too small, a line for each: their folder, and what is wanted and free there.
        tried: scenes of which tiles were done.
    """

    scenes: int
    there: int
    refused: tuple[Outcome, ...]
    passes: int
    seconds: float
    memory_bytes: int
    output_bytes: int
    short: tuple[tuple[str, int, int], ...]
    tried: int


@dataclass
class _Found:
    """What the headers say."""

    wanted: list[tuple[Request, UpscalePlan]] = field(default_factory=list)
    refused: list[Outcome] = field(default_factory=list)
    there: int = 0


def forecast_many(
    tasks: Sequence[SceneTask], settings: Settings, heard: Callable[[], None] = lambda: None
) -> ManyForecast:
    """What `upscale_many` would take on this machine with the same arguments; writes nothing.

    Scenes that were begun are counted whole.

    Args:
        tasks: from :func:`read_manifest`, or made.
        settings: for all of them.
        heard: called after each scene whose header was read.

    Raises:
        GeomoeError: weights or a device that are not there, or an error in the tiles that are tried.
    """
    found = _read_headers(tasks, settings, heard)
    tried = [(plan, _try(request)) for request, plan in _chosen(found.wanted)]
    plans = [plan for _, plan in found.wanted]
    # A scene takes some seconds to begin, the more for each of its tiles.
    passes = sum(plan.passes for plan, _ in tried)
    each = sum(forecast.seconds - START for _, forecast in tried) / passes if passes else 0.0
    seconds = len(plans) * START + each * sum(plan.passes for plan in plans)
    raw = sum(_raw_bytes(plan) for plan, _ in tried)
    share = sum(forecast.output_bytes for _, forecast in tried) / raw if raw else 0.0
    return ManyForecast(
        scenes=len(plans),
        there=found.there,
        refused=tuple(found.refused),
        passes=sum(plan.passes for plan in plans),
        seconds=seconds / len(devices_of(settings.device)),
        memory_bytes=max((forecast.memory_bytes for _, forecast in tried), default=0),
        output_bytes=round(share * sum(map(_raw_bytes, plans))),
        short=tuple(_short(found.wanted, share)),
        tried=len(tried),
    )


def _read_headers(tasks: Sequence[SceneTask], settings: Settings, heard: Callable[[], None]) -> _Found:
    model, device = load(settings.model, settings.scale), pick_device(settings.device)
    found = _Found()
    for task in tasks:
        request = request_of(task, settings, model)
        try:
            if is_done(request):
                found.there += 1
            else:
                with open_scene(request.src, request.bands) as scene:
                    found.wanted.append((request, prepare(scene, request, model, device)[0]))
        except GeomoeError as error:
            found.refused.append(Outcome(task, "failed", message=" ".join(str(error).split())))
        heard()
    return found


def _chosen(wanted: Sequence[tuple[Request, UpscalePlan]]) -> list[tuple[Request, UpscalePlan]]:
    """Scenes in the middle of equal parts of the work, by size."""
    by_size = sorted(wanted, key=lambda scene: scene[1].passes)
    behind = list(accumulate(plan.passes for _, plan in by_size))
    places = [(2 * i + 1) * behind[-1] / (2 * _SCENES) for i in range(_SCENES)] if wanted else []
    numbers = {next(i for i, sum_ in enumerate(behind) if sum_ >= place) for place in places}
    return [by_size[i] for i in sorted(numbers)]


def _try(request: Request) -> Forecast:
    with open_job(request) as job:
        return forecast_job(job)


def _raw_bytes(plan: UpscalePlan) -> int:
    """Of the output's pixels."""
    return math.prod(plan.output_size) * len(plan.bands) * np.dtype(plan.dtype).itemsize


def _short(wanted: Sequence[tuple[Request, UpscalePlan]], share: float) -> list[tuple[str, int, int]]:
    """Disks on which the outputs do not fit: a folder, bytes wanted and bytes free."""
    need: dict[int, float] = defaultdict(float)
    folders: dict[int, Path] = {}
    for request, plan in wanted:
        folder = Path(os.path.realpath(request.dst)).parent
        disk = folder.stat().st_dev
        folders.setdefault(disk, folder)
        need[disk] += share * _raw_bytes(plan)
    free = {disk: shutil.disk_usage(folder).free for disk, folder in folders.items()}
    return [(str(folders[d]), round(need[d]), free[d]) for d in need if need[d] > free[d]]
