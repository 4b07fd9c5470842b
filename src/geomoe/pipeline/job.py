"""One scene, one model and where the result goes: what every tile needs."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.models import load
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline.experts import BANDS, expert_layers
from geomoe.pipeline.plan import UpscalePlan, output_metadata, prepare
from geomoe.pipeline.runner import Runner, Upscaler, check_scale, pick_device
from geomoe.pipeline.tiles import Tile, Tiles, tile_side
from geomoe.pipeline.work import Output, Piece, window_of
from geomoe.raster.bands import select_bands
from geomoe.raster.open import open_scene
from geomoe.raster.radiometry import Radiometry, decide_radiometry, quantise
from geomoe.raster.sample import sample_scene
from geomoe.raster.scene import Scene, open_file
from geomoe.raster.validity import fill_invalid, upsample_mask

__all__ = ["Job", "is_made", "open_job"]


@dataclass(frozen=True)
class Job:
    """Everything that a tile needs; a tile changes nothing.

    Attributes:
        valid_share: share of sampled input pixels that are valid, 0 to 1.
        digest: SHA-256 of the scene's file.
    """

    scene: Scene
    plan: UpscalePlan
    tiles: Tiles
    runner: Runner
    model: Upscaler
    radiometry: Radiometry
    outputs: tuple[Output, ...]
    valid_share: float
    digest: str

    @property
    def key(self) -> dict[str, Any]:
        """Everything that the pixels depend on: a job with another key is another job."""
        return {
            "scene": self.digest,
            "bands": self.plan.bands,
            "radiometry": self.radiometry.describe(),
            "weights": self.model.hash,
            "model": self.model.name,
            "contract": asdict(self.model.contract),
            "tile": self.plan.tile,
            "outputs": [str(output.target.path) for output in self.outputs],
            "version": _version(),
            # Another build of torch or another processor may round otherwise.
            "torch": torch.__version__,
            "device": self.runner.hardware,
        }

    def run_all(self, numbers: Sequence[int]) -> Generator[tuple[int, tuple[list[Piece], bool]], None, None]:
        """Do some tiles, several at a time; gives the number and the result of each, in their order."""
        with self.runner.workers(self.plan.workers) as (pool, count):
            running: deque[tuple[int, Future[tuple[list[Piece], bool]]]] = deque()
            try:
                for number in numbers:
                    # Scenes are read by this thread alone: GDAL's handles are not to be shared.
                    tile = self.tiles[number]
                    data, valid = self.scene.read(window_of(tile.window, 1), self.plan.bands)  # [C, h, w]
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
            result = np.zeros((len(self.plan.bands), *(n * scale for n in any_valid.shape)), dtype=np.float64)
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


@contextmanager
def open_job(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    model: str | Upscaler,
    scale: int,
    experts: str | os.PathLike[str] | None,
    bands: str | Sequence[str | int] | None,
    tile: int | None,
    device: str,
    memory: int | None,
    overwrite: bool,
) -> Iterator[Job]:
    """A job that can be done, with its scene open; the arguments are those of `upscale`.

    Raises:
        GeomoeError: for bad input, or a job that cannot be done.
    """
    model = load(model, scale) if isinstance(model, str) else model
    check_scale(model, scale)
    place = pick_device(device)
    with open_scene(src, bands) as scene:
        plan, targets = prepare(scene, dst, model, experts, bands, tile, place, memory, overwrite)
        radiometry, valid_share = _look(scene, plan.bands)
        digest = scene.digest()
        tags = _tags(model, plan, radiometry, digest)
        metas = output_metadata(scene, plan.bands, model, experts is not None, tags)
        yield Job(
            scene=scene,
            plan=plan,
            tiles=Tiles(scene.width, scene.height, model.contract, tile),
            runner=Runner(model, place),
            model=model,
            radiometry=radiometry,
            outputs=tuple(
                Output(target, meta, each)
                for target, meta, each in zip(targets, metas, (model.contract.scale, 1), strict=False)
            ),
            valid_share=valid_share,
            digest=digest,
        )


def _look(scene: Scene, bands: tuple[int, ...]) -> tuple[Radiometry, float]:
    """The radiometry and the share of valid pixels; the sample, tens of megabytes, ends with the call."""
    sample = sample_scene(scene, bands)
    return decide_radiometry(scene.dtype, sample), sample.valid_share


def is_made(
    src: str | os.PathLike[str],
    outputs: Sequence[str | os.PathLike[str]],
    model: Upscaler,
    bands: str | Sequence[str | int] | None,
    tile: int | None,
) -> bool:
    """Whether files were made from ``src``, as it is, by these weights with these settings, by their tags.

    Raises:
        GeomoeError: as `open_job` for a scene that cannot be used.
    """
    found = []
    for path in outputs:
        try:
            with open_file(path) as made:
                found.append(made.tags)
        except GeomoeError:
            return False
    with open_scene(src, bands) as scene:
        chosen = select_bands(scene, bands, model.contract.bands)
        wanted = _settings(model, chosen, tile_side(model.contract, tile), scene.digest())
    return all(tags.get(name) == value for tags in found for name, value in wanted.items())


def _settings(model: Upscaler, bands: Sequence[int], tile: int, digest: str) -> dict[str, str]:
    return {
        "GEOMOE_SOURCE": digest,
        "GEOMOE_WEIGHTS": model.hash,
        "GEOMOE_SCALE": json.dumps(model.contract.scale),
        "GEOMOE_BANDS": json.dumps(bands),
        "GEOMOE_TILE": json.dumps(tile),
    }


def _tags(model: Upscaler, plan: UpscalePlan, radiometry: Radiometry, digest: str) -> Mapping[str, str]:
    # No time and no path of any machine: the same input gives the same bytes.
    version = _version()
    return {
        "GEOMOE_VERSION": version,
        "GEOMOE_MODEL": model.name,
        **_settings(model, plan.bands, plan.tile, digest),
        "GEOMOE_RADIOMETRY": radiometry.describe(),
        "TIFFTAG_SOFTWARE": f"geomoe {version}",
    }


def _version() -> str:
    try:
        return metadata.version("geomoe")
    except metadata.PackageNotFoundError:
        return "unknown"
