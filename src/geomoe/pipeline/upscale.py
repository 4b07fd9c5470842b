"""The main job: a georeferenced scene in, a super-resolved scene out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from geomoe.pipeline.heap import trim_heap
from geomoe.pipeline.job import open_job
from geomoe.pipeline.plan import UpscalePlan
from geomoe.pipeline.progress import Progress, Silent
from geomoe.pipeline.runner import Upscaler
from geomoe.pipeline.work import Work

__all__ = ["UpscaleReport", "upscale"]


@dataclass(frozen=True)
class UpscaleReport:
    """What was done.

    Attributes:
        output, experts: files written; ``experts`` is ``None`` where no map was asked for.
        plan: the job as `plan_upscale` describes it.
        resumed: tiles that an earlier process had done.
        skipped: tiles without a valid pixel, which the model was not run on.
        valid_share: share of sampled input pixels that are valid, 0 to 1.
        radiometry: how values were brought to the model's range, in words.
    """

    output: Path
    experts: Path | None
    plan: UpscalePlan
    resumed: int
    skipped: int
    valid_share: float
    radiometry: str


def upscale(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    model: str | Upscaler = "mfg_hmoe_light",
    scale: int = 4,
    experts: str | os.PathLike[str] | None = None,
    bands: str | Sequence[str | int] | None = None,
    tile: int | None = None,
    device: str = "auto",
    memory: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    order: Sequence[int] | None = None,
) -> UpscaleReport:
    """Super-resolve a scene into a cloud-optimised GeoTIFF.

    Grid, data type, range, validity, band names, units, scales, offsets, colour interpretation and tags come
    out as they went in; the transform is finer by ``scale``. Memory does not grow with the scene. Both files
    appear complete and checked, or neither does. However a call ends, the same call goes on where it was; see
    :class:`~geomoe.pipeline.work.Work`. Bands beyond those the model takes at once go through in
    groups; see `Runner`.

    Args:
        src: a local scene of uint8, uint16, int16 or float32: GeoTIFF, JPEG 2000, Sentinel-2 product or STAC
            item; see :func:`geomoe.raster.open_scene`.
        dst: the output, ``.tif``.
        model: name of a model or weights file, as for :func:`geomoe.load`, or one that is loaded.
        scale: output pixels along one input pixel.
        experts: if given, the map of experts goes here, on the grid of ``src``.
        bands: names or 1-based numbers; all bands with data if ``None``.
        tile: side of a tile in input pixels, rounded up as the model asks; the model's own if ``None``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``...
        memory: bytes that the process may take at its peak; half of what is free if ``None``. On a processor
            it decides how many tiles are done at a time, one for each of torch's threads at most.
        overwrite: whether ``dst`` and ``experts`` may exist.
        progress: hears of every tile.
        order: the order in which the tiles are done, a permutation of their numbers. The bytes are the same.

    Raises:
        GeomoeError: for bad input or a job that cannot be done; nothing is left at the targets then, and
            files that were to be overwritten are as they were.
    """
    with (
        open_job(
            src, dst, model=model, scale=scale, experts=experts, bands=bands, tile=tile, device=device,
            memory=memory, overwrite=overwrite,
        ) as job,
        Work(job.outputs, job.key, job.tiles) as work,
    ):  # fmt: skip
        with _told(progress or Silent(), len(job.tiles), work) as advance:
            wanted = [] if work.placed else work.todo(range(len(job.tiles)) if order is None else order)
            for number, (pieces, ran) in job.run_all(wanted):
                work.write(number, pieces, ran=ran)
                trim_heap()
                advance()
        work.finish()
    return UpscaleReport(
        output=job.outputs[0].target.path,
        experts=None if experts is None else job.outputs[1].target.path,
        plan=job.plan,
        resumed=work.resumed,
        skipped=work.skipped,
        valid_share=job.valid_share,
        radiometry=job.radiometry.rule,
    )


@contextmanager
def _told(progress: Progress, total: int, work: Work) -> Iterator[Callable[[], None]]:
    """Tells a listener of the work; one whose terminal is gone does not hinder it."""

    def advance() -> None:
        with suppress(OSError):
            progress.advance()

    try:
        with suppress(OSError):
            progress.start(total, work.resumed, work.note)
        yield advance
    finally:
        with suppress(OSError):
            progress.close()
