"""What a job will take, tried on a few of its tiles."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomoe.pipeline.heap import trim_heap
from geomoe.pipeline.job import Job, open_job
from geomoe.pipeline.memory import forget_peak, peak_memory
from geomoe.pipeline.output import window_of
from geomoe.pipeline.plan import ScenePlan
from geomoe.pipeline.request import Path, Request
from geomoe.pipeline.run_tiles import run_all
from geomoe.pipeline.tiles import Box, Tile, Tiles
from geomoe.raster.write.cog import compressed_share

__all__ = ["START", "Forecast", "forecast_job", "forecast_scene"]

_PART = 0.1
"""Of the job's work, at most, is done to estimate it."""
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
            estimate where the system does not tell, or where fewer or smaller tiles were tried at a time.
        output_bytes: of the finished files.
        tried: tiles that this was learned from.
    """

    plan: ScenePlan
    seconds: float
    memory_bytes: int
    output_bytes: int
    tried: int


def forecast_scene(src: Path, dst: Path, **options: Any) -> Forecast:
    """What `upscale` would take with the same arguments; writes nothing.

    Raises:
        GeomoeError: for what `upscale` would refuse before it works, or in the tiles that are tried.
    """
    with open_job(Request.of(src, dst, **options)) as job:
        return forecast_job(job)


def forecast_job(job: Job) -> Forecast:
    """What a job that is open would take."""
    tiles, numbers, alive = _trial(job)
    workers = min(job.plan.workers, len(numbers))
    pieces: list[list[NDArray[np.generic]]] = [[] for _ in job.outputs]
    forget_peak()
    began = now = time.monotonic()
    done = shown = 0
    results = run_all(replace(job, tiles=tiles), numbers)
    for number, (made, _) in results:
        done += 1
        shown += _area(tiles[number].window)
        now = time.monotonic()
        if done == workers < len(numbers):  # the first pass of each builds what the others use
            began, shown = now, 0
        for kept, (data, _) in zip(pieces, made, strict=True):
            kept.append(data[:, :_SIDE, :_SIDE].copy())
        trim_heap()  # as the job does
        if now - began > _SECONDS and shown:
            break
    results.close()
    memory = peak_memory() or job.plan.memory_bytes
    # Less at a time than the job has.
    if workers < job.plan.workers or len(tiles) > len(job.tiles) or job.tiles.overlap:
        memory = max(memory, job.plan.memory_bytes)
    seconds = (now - began) / shown * job.tiles.shown * alive * workers / job.plan.workers
    size, finishing = 0.0, 0.0
    for output, kept in zip(job.outputs, pieces, strict=True):
        meta = output.meta
        share, each = compressed_share(_mosaic(kept), meta.dtype)
        raw = meta.width * meta.height * meta.count * np.dtype(meta.dtype).itemsize
        size += raw * share * alive + (meta.width * meta.height / 64 if meta.mask else 0)
        finishing += raw * each
    return Forecast(job.plan, START + seconds + finishing, memory, round(size), done)


def _trial(job: Job) -> tuple[Tiles, list[int], float]:
    """Tiles of which some are to be tried, their numbers, and the share of all that have valid pixels.

    Smaller than the job's where one of these is more than `_PART` of it, which all together are not, but for
    a scene that is hardly larger than the margin of a tile.
    """
    scene, tiling = job.scene, job.tiles.tiling
    side, budget = job.plan.tile, job.tiles.shown * _PART
    tiles = Tiles(scene.width, scene.height, tiling, side)  # each alone: a tile's time is that of its pass
    while _area(tiles[_middle(tiles)].window) > budget and side > tiling.multiple:
        side = max(tiling.multiple, side // 2)
        tiles = Tiles(scene.width, scene.height, tiling, side)
    most = max(_TILES, 3 * job.plan.workers)
    looked = _spread(len(tiles), most)
    alive = [number for number in looked if _is_alive(job, tiles[number])] or [_middle(tiles)]
    count = max(1, min(most, int(budget / _area(tiles[_middle(tiles)].window))))
    return tiles, [alive[i] for i in _spread(len(alive), count)], len(alive) / len(looked)


def _spread(total: int, count: int) -> list[int]:
    """At most so many numbers below ``total``, from the middle of as many equal parts."""
    count = min(total, count)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def _middle(tiles: Tiles) -> int:
    return len(tiles) // tiles.columns // 2 * tiles.columns + tiles.columns // 2


def _area(box: Box) -> int:
    return box.width * box.height


def _is_alive(job: Job, tile: Tile) -> bool:
    return bool(job.scene.read(window_of(tile.core, 1), job.plan.bands)[1].any())


def _mosaic(pieces: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Pieces ``[C, h, w]`` side by side, near a square; those at the edges of the scene are left out."""
    largest = max(piece.shape for piece in pieces)
    whole = [piece for piece in pieces if piece.shape == largest]
    across = math.isqrt(len(whole))
    rows = [whole[i : i + across] for i in range(0, len(whole) - across + 1, across)]
    return np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1)
