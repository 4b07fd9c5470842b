"""What a job will take, tried on a few of its tiles."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from geomoe.pipeline.heap import trim_heap
from geomoe.pipeline.job import Job, open_job
from geomoe.pipeline.memory import forget_peak, peak_memory
from geomoe.pipeline.plan import UpscalePlan
from geomoe.pipeline.request import Options, Path, Request
from geomoe.raster.cog import compressed_share

__all__ = ["START", "Forecast", "forecast_job", "forecast_upscale"]

_TILES = 12
_SIDE = 512
"""Of what is kept of a tile, to see how small it becomes."""
_SECONDS = 30.0
"""After which no more tiles are tried."""
START = 4.0
"""Seconds until the first tile, most of which are imports."""


@dataclass(frozen=True)
class Forecast:
    """A job, and what was learned of it by doing a few tiles and throwing them away.

    Attributes:
        plan: of the job.
        seconds: that the job will take.
        memory_bytes: the most that this process took for the tiles, others beside them included; the plan's
            estimate where the system does not tell.
        output_bytes: of the finished files.
        tried: tiles that this was learned from.
    """

    plan: UpscalePlan
    seconds: float
    memory_bytes: int
    output_bytes: int
    tried: int


def forecast_upscale(src: Path, dst: Path, **options: Unpack[Options]) -> Forecast:
    """What `upscale` would take with the same arguments; writes nothing.

    Raises:
        GeomoeError: for what `upscale` would refuse before it works, or in the tiles that are tried.
    """
    with open_job(Request(src, dst, **options)) as job:
        return forecast_job(job)


def forecast_job(job: Job) -> Forecast:
    """What a job that is open would take."""
    total, workers = len(job.tiles), job.plan.workers
    count = min(total, max(_TILES, 3 * workers))
    # From the middle of as many equal parts of the scene.
    numbers = [(2 * i + 1) * total // (2 * count) for i in range(count)]
    pieces: list[list[NDArray[np.generic]]] = [[] for _ in job.outputs]
    forget_peak()
    began = warm = now = time.monotonic()
    done = 0
    results = job.run_all(numbers)
    for _, (made, _) in results:
        done += 1
        now = time.monotonic()
        if done <= workers < count:  # the first pass of each builds what the others use
            warm = now
        for kept, (data, _) in zip(pieces, made, strict=True):
            kept.append(data[:, :_SIDE, :_SIDE].copy())
        trim_heap()  # as the job does
        if now - began > _SECONDS:
            break
    results.close()
    memory = peak_memory() or job.plan.memory_bytes
    timed = done - workers if done > workers else done
    tiles = total * (now - (warm if done > workers else began)) / timed
    size, finishing = 0.0, 0.0
    for output, kept in zip(job.outputs, pieces, strict=True):
        meta = output.meta
        share, seconds = compressed_share(_mosaic(kept), meta.dtype)
        raw = meta.width * meta.height * meta.count * np.dtype(meta.dtype).itemsize
        size += raw * share + (meta.width * meta.height / 64 if meta.mask else 0)
        finishing += raw * seconds
    return Forecast(job.plan, START + tiles + finishing, memory, round(size), done)


def _mosaic(pieces: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Pieces ``[C, h, w]`` side by side, near a square; those at the edges of the scene are left out."""
    largest = max(piece.shape for piece in pieces)
    whole = [piece for piece in pieces if piece.shape == largest]
    across = math.isqrt(len(whole))
    rows = [whole[i : i + across] for i in range(0, len(whole) - across + 1, across)]
    return np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)
