"""Tiles of a job through its model, several at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from geomoe.errors import GeomoeError
from geomoe.moe.plan import LastSignals, RoutingTrace
from geomoe.pipeline.blend import blended
from geomoe.pipeline.job import Job
from geomoe.pipeline.layers.base import DoneTile, Layer
from geomoe.pipeline.layers.reliability import ood_score
from geomoe.pipeline.output import Piece, window_of
from geomoe.pipeline.tiles import Tile
from geomoe.pipeline.writers.base import RanTile
from geomoe.raster.read.validity import fill_invalid, upsample_mask

__all__ = ["run_all"]

Done = tuple[list[Piece], bool]
"""What goes to each output, and whether the model had to run."""


@dataclass(frozen=True)
class _Begun:
    """A tile that the model has run on, if it had to.

    Attributes:
        done: its pieces; None where they wait for what the tiles around it give.
        core: what waits: the core alone, with nothing in ``result``.
        shares: ``[D, h, w]`` float32, class probabilities of the pixels that it gives to.
        routed: maps of routing, by their names, which are of this tile alone.
    """

    done: Done | None = None
    core: RanTile | None = None
    shares: NDArray[np.float32] | None = None
    routed: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


def run_all(job: Job, numbers: Sequence[int]) -> Generator[tuple[int, Done], None, None]:
    """Do some tiles, several at a time; gives the number and the result of each, in their order.

    Tiles that overlap are kept until those that they give to are done: of a whole scene, row by row, about
    two rows of them.
    """
    tiles = job.tiles
    with job.runner.workers(job.plan.workers) as (pool, count):
        wanted = Counter(near for number in numbers for near in tiles.around(number))
        begun: dict[int, Future[_Begun]] = {}
        waiting: deque[int] = deque()

        def done(number: int) -> tuple[int, Done]:
            around = tiles.around(number)
            found = _finish(job, number, {near: begun[near].result() for near in around})
            wanted.subtract(around)
            for near in around:
                if not wanted[near]:
                    del begun[near]
            return number, found

        try:
            for number in numbers:
                for near in tiles.around(number):
                    if near not in begun:
                        # Scenes are read by this thread alone: GDAL's handles are not to be shared.
                        begun[near] = pool.submit(_begin, job, near, *_read(job, tiles[near]))
                waiting.append(number)
                if len(waiting) > count:
                    yield done(waiting.popleft())
            while waiting:
                yield done(waiting.popleft())
        finally:
            for future in begun.values():
                future.cancel()


def _read(job: Job, tile: Tile) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pixels ``[C, h, w]`` of a tile and their validity, from the scene as it was."""
    try:
        found = job.scene.read(window_of(tile.window, 1), job.plan.bands)
    except GeomoeError:
        job.check_scene()  # that it was changed says more than that it is damaged
        raise
    job.check_scene()
    return found


def _begin(job: Job, number: int, data: NDArray[np.float32], valid: NDArray[np.bool_]) -> _Begun:
    """Run the model on a tile, if its core has something to be drawn."""
    tile, writer = job.tiles[number], job.writer
    core = (slice(None), *tile.inner)
    there = writer.there(valid[core])  # [h, w]
    if not there.any():
        pixels = writer.blank(valid[core], job.outputs[0].meta)
        blanks = [layer.blank(len(job.plan.bands), *there.shape) for layer in job.layers]
        return _Begun(
            done=([(pixels, upsample_mask(there, writer.scale)), *((b, there) for b in blanks)], False)
        )
    given, window = job.tiles.given(number), tile.window
    left, top = given.x - window.x, given.y - window.y
    area = slice(None), slice(top, top + given.height), slice(left, left + given.width)
    ran, trace = _run(job, tile, data, valid, area)
    own = _done_tile(job, tile, ran, trace)
    if not job.tiles.overlap:
        return _Begun(done=(_pieces(job, own), True))
    inside = (slice(0, tile.core.height), slice(0, tile.core.width))
    return _Begun(
        core=RanTile(
            data=data[core].copy(),  # and not a view, which would keep the whole window
            shown=ran.shown[core].copy(),
            valid=valid[core].copy(),
            inner=inside,
            result=np.empty((0, 0, 0), dtype=np.float32),
            ood_score=None,
            beside={},
        ),
        shares=softmax(ran.result[area], axis=0),
        routed={layer.name: _map(job, layer, own) for layer in job.layers if layer.routed or layer.judged},
    )


def _finish(job: Job, number: int, begun: Mapping[int, _Begun]) -> Done:
    """A tile, of what it and those around it gave."""
    own = begun[number]
    if own.done is not None:
        return own.done
    assert own.core is not None
    given = {near: of.shares for near, of in begun.items() if of.shares is not None}
    shares = blended(job.tiles, number, given)
    # Logits again, of which the probabilities are these.
    ran = replace(own.core, result=np.log(np.maximum(shares, np.finfo(np.float32).tiny)))
    return _pieces(job, _done_tile(job, job.tiles[number], ran, RoutingTrace()), own.routed), True


def _done_tile(job: Job, tile: Tile, ran: RanTile, trace: RoutingTrace) -> DoneTile:
    core = (slice(None), *ran.inner)
    height, width = ran.valid.shape[1:]
    return DoneTile(
        source=ran.data[core],
        valid=ran.valid[core],
        pixels=job.writer.pixels(ran, job.radiometry, job.outputs[0].meta),
        answer=ran.result[ran.fine(job.writer.scale)],
        trace=trace,
        size=(height, width),
        inner=ran.inner,
        ood_score=None if ran.ood_score is None else ran.ood_score[ran.inner],
        beside=ran.beside,
        corner=(tile.window.y, tile.window.x),
    )


def _pieces(job: Job, done: DoneTile, made: Mapping[str, NDArray[np.generic]] | None = None) -> list[Piece]:
    """What goes to each output; maps that are made already are taken."""
    there, made = job.writer.there(done.valid), made or {}
    maps = [made[layer.name] if layer.name in made else _map(job, layer, done) for layer in job.layers]
    return [(done.pixels, upsample_mask(there, job.writer.scale)), *((values, there) for values in maps)]


def _map(job: Job, layer: Layer, done: DoneTile) -> NDArray[np.generic]:
    there = job.writer.there(done.valid)
    made: NDArray[np.generic] = np.where(
        there, layer.pixels(done), layer.blank(len(job.plan.bands), *there.shape)
    )
    return made


def _run(
    job: Job, tile: Tile, data: NDArray[np.float32], valid: NDArray[np.bool_], area: tuple[slice, ...]
) -> tuple[RanTile, RoutingTrace]:
    """A tile with what the model gave and how unusual it is; how it was routed, in the first pass.

    ``area`` is what of the window is used where tiles overlap.
    """
    writer = job.writer
    shown = fill_invalid(job.radiometry.to_model(data), valid)
    size = shown.shape[1:]
    first, unusual = RoutingTrace(), None if job.reference is None else np.zeros(size)

    def hear(trace: LastSignals) -> None:
        nonlocal first
        if unusual is not None and job.reference is not None:
            np.maximum(unusual, ood_score(trace, job.reference, job.model.name, *size), out=unusual)
        first = first if len(first) else RoutingTrace(trace)

    wanted = job.reference is not None or any(layer.routed for layer in job.layers)
    of = list(dict.fromkeys(name for layer in job.layers for name in layer.of))
    passes = job.runner.passes(shown, writer.told(valid), hear if wanted else None, of)
    bands = [writer.channels(len(data)), *(job.model.contract.beside[name] for name in of)]
    result, *others = np.split(writer.join(passes, len(data)), np.cumsum(bands)[:-1])
    ran = RanTile(data, shown, valid, tile.inner, result, unusual, dict(zip(of, others, strict=True)))
    used = result if job.request.conserve else result[area if job.tiles.overlap else ran.fine(writer.scale)]
    if not all(np.isfinite(values).all() for values in (used, *others)):
        raise GeomoeError(
            f"{job.model.name} gave NaN or infinity at columns {tile.core.x}+{tile.core.width}, "
            f"rows {tile.core.y}+{tile.core.height} of {job.scene.path.name}; "
            "check the scene for extreme values there, or use other weights"
        )
    return ran, first
