"""The main job: a georeferenced scene in, a super-resolved scene out."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.models import load
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline.experts import BANDS, expert_layers
from geomoe.pipeline.heap import trim_heap
from geomoe.pipeline.plan import UpscalePlan, output_metadata, prepare
from geomoe.pipeline.progress import Progress, Silent
from geomoe.pipeline.runner import Runner, Upscaler, check_scale, pick_device
from geomoe.pipeline.tiles import Tile, Tiles
from geomoe.pipeline.work import Output, Piece, Work, window_of
from geomoe.raster.radiometry import Radiometry, decide_radiometry, quantise
from geomoe.raster.sample import sample_scene
from geomoe.raster.scene import Scene, open_scene
from geomoe.raster.validity import fill_invalid, upsample_mask

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
    overwrite: bool = False,
    progress: Progress | None = None,
    order: Sequence[int] | None = None,
) -> UpscaleReport:
    """Super-resolve a GeoTIFF into a cloud-optimised GeoTIFF.

    Grid, data type, range, validity, band names, units, scales, offsets, colour interpretation and tags come
    out as they went in; the transform is finer by ``scale``. Memory does not grow with the scene. Both files
    appear complete and checked, or neither does. Bands beyond those the model takes at once go through in
    groups; see `Runner`.

    Args:
        src: local GeoTIFF or JPEG 2000: uint8, uint16, int16 or float32.
        dst: the output, ``.tif``.
        model: name of a model or weights file, as for :func:`geomoe.load`, or one that is loaded.
        scale: output pixels along one input pixel.
        experts: if given, the map of experts goes here, on the grid of ``src``.
        bands: names or 1-based numbers; all bands with data if ``None``.
        tile: side of a tile in input pixels, rounded up as the model asks; the model's own if ``None``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``...
        overwrite: whether ``dst`` and ``experts`` may exist.
        progress: hears of every tile.
        order: the order in which the tiles are done, a permutation of their numbers. The bytes are the same.

    Raises:
        GeomoeError: for bad input or a job that cannot be done; nothing is left at the targets then, and
            files that were to be overwritten are as they were.
    """
    model = load(model, scale) if isinstance(model, str) else model
    check_scale(model, scale)
    with ExitStack() as stack:
        scene = stack.enter_context(open_scene(src))
        plan, targets = prepare(scene, dst, model, experts, bands, tile, overwrite)
        runner = Runner(model, pick_device(device))
        radiometry, valid_share = _look(scene, plan.bands)
        metas = output_metadata(scene, plan.bands, model, experts is not None, _tags(model, radiometry))
        outputs = [
            Output(target, meta, each)
            for target, meta, each in zip(targets, metas, (model.contract.scale, 1), strict=False)
        ]
        tiles = Tiles(scene.width, scene.height, model.contract, tile)
        key = _key(scene, plan, model, runner, radiometry, outputs)
        work = stack.enter_context(Work(outputs, key, tiles))
        job = _Job(scene, plan.bands, runner, model, radiometry, outputs)
        with _told(progress or Silent(), len(tiles), work) as listener:
            wanted = [] if work.placed else work.todo(range(len(tiles)) if order is None else order)
            for number, (pieces, ran) in job.run_all(tiles, wanted):
                work.write(number, pieces, ran=ran)
                trim_heap()
                listener.advance()
        work.finish()
        paths = [t.path for t in targets]
    return UpscaleReport(
        output=paths[0],
        experts=paths[1] if experts is not None else None,
        plan=plan,
        resumed=work.resumed,
        skipped=work.skipped,
        valid_share=valid_share,
        radiometry=radiometry.rule,
    )


def _look(scene: Scene, bands: tuple[int, ...]) -> tuple[Radiometry, float]:
    """The radiometry and the share of valid pixels; the sample, tens of megabytes, ends with the call."""
    sample = sample_scene(scene, bands)
    return decide_radiometry(scene.dtype, sample), sample.valid_share


def _key(
    scene: Scene,
    plan: UpscalePlan,
    model: Upscaler,
    runner: Runner,
    radiometry: Radiometry,
    outputs: Sequence[Output],
) -> dict[str, Any]:
    """Everything that the pixels depend on: a job with another key is another job."""
    return {
        "scene": scene.digest(),
        "bands": plan.bands,
        "radiometry": radiometry.describe(),
        "weights": model.hash,
        "model": model.name,
        "contract": asdict(model.contract),
        "tile": plan.tile,
        "outputs": [output.target.path.name for output in outputs],
        "version": _version(),
        # Another build of torch or another processor may round otherwise.
        "torch": torch.__version__,
        "device": runner.hardware,
    }


@dataclass(frozen=True)
class _Job:
    """Everything that a tile needs; a tile changes nothing."""

    scene: Scene
    bands: tuple[int, ...]
    runner: Runner
    model: Upscaler
    radiometry: Radiometry
    outputs: Sequence[Output]

    def run_all(self, tiles: Tiles, numbers: Sequence[int]) -> Iterator[tuple[int, tuple[list[Piece], bool]]]:
        """Do some tiles, several at a time; gives the number and the result of each, in their order."""
        with self.runner.workers() as (pool, count):
            running: deque[tuple[int, Future[tuple[list[Piece], bool]]]] = deque()
            try:
                for number in numbers:
                    # Scenes are read by this thread alone: GDAL's handles are not to be shared.
                    tile = tiles[number]
                    data, valid = self.scene.read(window_of(tile.window, 1), self.bands)  # [C, h, w]
                    running.append((number, pool.submit(self.run, tile, data, valid)))
                    if len(running) > count:
                        first, future = running.popleft()
                        yield first, future.result()
                while running:
                    first, future = running.popleft()
                    yield first, future.result()
            finally:
                for _, future in running:
                    future.cancel()

    def run(
        self, tile: Tile, data: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[list[Piece], bool]:
        """Do one tile: what goes to each output, and whether the model had to run."""
        scale = self.model.contract.scale
        rows, columns = tile.inner
        valid_core = valid[:, rows, columns]
        any_valid: NDArray[np.bool_] = np.any(valid_core, axis=0)  # [h, w], valid to the data set
        trace = RoutingTrace() if len(self.outputs) > 1 else None
        layers = np.zeros((len(BANDS), *any_valid.shape), dtype=np.uint8)
        if any_valid.any():
            result = self._model(tile, fill_invalid(self.radiometry.to_model(data), valid), trace)
            if trace is not None:
                whole = expert_layers(trace, self.model.name, tile.window.height, tile.window.width)
                layers = np.where(any_valid, whole[:, rows, columns], np.uint8(0))
        else:
            result = np.zeros((len(self.bands), *(n * scale for n in any_valid.shape)), dtype=np.float64)
        meta = self.outputs[0].meta
        pixels = quantise(result, upsample_mask(valid_core, scale), meta.dtype, meta.nodata)
        pieces: list[Piece] = [(pixels, upsample_mask(any_valid, scale)), (layers, any_valid)]
        return pieces[: len(self.outputs)], bool(any_valid.any())

    def _model(
        self, tile: Tile, filled: NDArray[np.float32], trace: RoutingTrace | None
    ) -> NDArray[np.float64]:
        """The core of a tile in source units, ``[C, h * scale, w * scale]`` float64."""
        scale = self.model.contract.scale
        rows, columns = (slice(s.start * scale, s.stop * scale) for s in tile.inner)
        result = self.runner(filled, trace)[:, rows, columns]
        if not np.isfinite(result).all():
            raise GeomoeError(
                f"{self.model.name} gave NaN or infinity at columns {tile.core.x}+{tile.core.width}, "
                f"rows {tile.core.y}+{tile.core.height} of {self.scene.path.name}; "
                "check the scene for extreme values there, or use other weights"
            )
        return self.radiometry.to_source(result)


def _tags(model: Upscaler, radiometry: Radiometry) -> Mapping[str, str]:
    # No time and no path of any machine: the same input gives the same bytes.
    version = _version()
    return {
        "GEOMOE_VERSION": version,
        "GEOMOE_MODEL": model.name,
        "GEOMOE_WEIGHTS": model.hash,
        "GEOMOE_SCALE": json.dumps(model.contract.scale),
        "GEOMOE_RADIOMETRY": radiometry.describe(),
        "TIFFTAG_SOFTWARE": f"geomoe {version}",
    }


def _version() -> str:
    try:
        return metadata.version("geomoe")
    except metadata.PackageNotFoundError:
        return "unknown"


@contextmanager
def _told(progress: Progress, total: int, work: Work) -> Iterator[Progress]:
    try:
        progress.start(total, work.resumed, work.note)
        yield progress
    finally:
        progress.close()
