"""The main job: a georeferenced scene in, what a model makes of it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomoe.pipeline.checkpoint import Work
from geomoe.pipeline.heap import trim_heap
from geomoe.pipeline.history import model_item_name
from geomoe.pipeline.job import Job, open_job
from geomoe.pipeline.output import Piece
from geomoe.pipeline.plan import ScenePlan
from geomoe.pipeline.progress import Progress, Silent
from geomoe.pipeline.provenance import Provenance, Record
from geomoe.pipeline.request import Path as Place
from geomoe.pipeline.request import Request
from geomoe.pipeline.run_tiles import run_all
from geomoe.pipeline.runner import options_of

__all__ = ["SceneReport", "carry_out", "predict", "upscale"]


@dataclass(frozen=True)
class SceneReport:
    """What was done.

    Attributes:
        output: the file written.
        title: what it is, such as ``classes of pixels``.
        layers: the maps written, by their names.
        items: the STAC item beside each file written, in the order of the files.
        model_item: the one of the model, in the folder of the output.
        model: name of the weights.
        plan: the job as `plan_scene` describes it.
        resumed: tiles that an earlier process had done.
        skipped: tiles without a valid pixel, which the model was not run on.
        valid_share: share of sampled input pixels that are valid, 0 to 1.
        radiometry: how values were brought to the model's range, in words.
    """

    output: Path
    title: str
    layers: dict[str, Path]
    items: tuple[Path, ...]
    model_item: Path
    model: str
    plan: ScenePlan
    resumed: int
    skipped: int
    valid_share: float
    radiometry: str

    @property
    def experts(self) -> Path | None:
        """The map of experts; ``None`` where none was asked for."""
        return self.layers.get("experts")


def upscale(
    src: Place,
    dst: Place,
    *,
    progress: Progress | None = None,
    order: Sequence[int] | None = None,
    told: Callable[[ScenePlan], None] = lambda plan: None,
    **options: Any,
) -> SceneReport:
    """Super-resolve a scene into a cloud-optimised GeoTIFF.

    Grid, data type, range, validity, band names, units, scales, offsets, colour interpretation and tags come
    out as they went in; the transform is finer by ``scale``. Memory does not grow with the scene. All files
    appear complete and checked, each with a STAC item beside it that says how it was made, or none does.
    However a call ends, the same call resumes it; see `Work`. Bands beyond those the model takes at
    once go through in groups; see `Runner`.

    Args:
        src: the scene; see :class:`~geomoe.pipeline.request.Request`.
        dst: the output, ``.tif``.
        progress: told of every tile.
        order: the order in which the tiles are done, a permutation of their numbers. The bytes are the same.
        told: given the plan, with its notes, before the first tile.
        options: ``model``, ``scale`` and whatever else a `Request` has, and maps by their names.

    Raises:
        GeomoeError: for bad input or a job that cannot be done; nothing is left at the targets then, and
            files that were to be overwritten are as they were.
    """
    return carry_out(Request.of(src, dst, **options), progress, order, told)


def predict(
    src: Place,
    dst: Place,
    *,
    progress: Progress | None = None,
    order: Sequence[int] | None = None,
    told: Callable[[ScenePlan], None] = lambda plan: None,
    **options: Any,
) -> SceneReport:
    """Write what a model makes of a scene, under all that :func:`upscale` promises.

    Of a model that gives the classes of pixels that is one band of bytes: classes from 1 in the order of the
    model, with their colours and names, 0 where a band of the scene is not valid.

    Args:
        src: as of `upscale`, as ``dst``, ``progress``, ``order`` and ``told`` are.
        dst: see there.
        progress: see there.
        order: see there.
        told: see there.
        options: ``model`` and whatever else a `Request` has; without ``scale``, the model's own.

    Raises:
        GeomoeError: as `upscale`, or where the scene has not the bands of the model.
    """
    return carry_out(Request.of(src, dst, **{"scale": None, **options}), progress, order, told)


def carry_out(
    request: Request,
    progress: Progress | None = None,
    order: Sequence[int] | None = None,
    told: Callable[[ScenePlan], None] = lambda plan: None,
) -> SceneReport:
    """As :func:`upscale`, what a request asks for."""
    with open_job(request) as job, _work(job) as work:
        told(job.plan)
        with _told(progress or Silent(), len(job.tiles), work) as advance:
            wanted = [] if work.placed else work.todo(range(len(job.tiles)) if order is None else order)
            for number, (pieces, ran) in run_all(job, wanted):
                work.write(number, pieces, ran=ran)
                trim_heap()
                advance()
        if not work.placed:
            job.check_scene(whole=True)
        work.finish()
    model_item = model_item_name(job.model.name, job.model.hash, options_of(job.model))
    return SceneReport(
        output=job.outputs[0].target.path,
        title=job.writer.title,
        layers={
            layer.name: made.target.path for layer, made in zip(job.layers, job.outputs[1:], strict=True)
        },
        items=tuple(output.target.item for output in job.outputs),
        model_item=job.outputs[0].target.path.with_name(model_item),
        model=job.model.name,
        plan=job.plan,
        resumed=work.resumed,
        skipped=work.skipped,
        valid_share=job.valid_share,
        radiometry=job.radiometry.rule,
    )


def _work(job: Job) -> Work:
    """The tiles of a job on the disk, and who writes down how they came to be."""
    key = job.key
    record = Record(
        key=key,
        scene=job.scene,
        bands=job.plan.bands,
        names=job.plan.names,
        known=job.known,
        remarks=job.remarks,
        sources=job.sources,
        model=job.model,
        writer=job.writer,
        outputs=job.outputs,
    )
    provenance = Provenance(record)

    def redo(number: int) -> list[Piece]:
        with closing(run_all(job, [number])) as again:
            return next(again)[1][0]

    return Work(job.outputs, key, job.tiles, provenance.item, provenance.model, redo)


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
