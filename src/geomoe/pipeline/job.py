"""One scene, one model and where the result goes: what every tile needs."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from geomoe.data.degradation import upsample_bicubic
from geomoe.errors import GeomoeError
from geomoe.layers.conserve import conserve
from geomoe.models.precision import Precision
from geomoe.models.reference import RoutingReference
from geomoe.moe.plan import LastSignals, RoutingTrace
from geomoe.pipeline.choice import for_model, remarks
from geomoe.pipeline.facts import as_object
from geomoe.pipeline.history import IMAGE, geomoe_version, seal
from geomoe.pipeline.layers import make_layers
from geomoe.pipeline.layers.base import DoneTile, Layer
from geomoe.pipeline.layers.reliability import reference_of, surprise
from geomoe.pipeline.output import Output, Piece, begun_in, window_of
from geomoe.pipeline.plan import Prepared, UpscalePlan, metadata_of, model_for, notes_of, prepared
from geomoe.pipeline.request import Request
from geomoe.pipeline.runner import Runner, Upscaler, hardware, is_measured, tiling_of
from geomoe.pipeline.tiles import Tile, Tiles, tile_side
from geomoe.raster.bands import select_bands
from geomoe.raster.known import KnownScene, known_of
from geomoe.raster.metadata import CogMetadata
from geomoe.raster.open import open_scene
from geomoe.raster.radiometry import Radiometry, decide_radiometry, limits, quantise
from geomoe.raster.sample import look
from geomoe.raster.scene import Scene, open_file
from geomoe.raster.stac import item_path, json_number, read_item
from geomoe.raster.target import Target
from geomoe.raster.validity import fill_invalid, upsample_mask
from geomoe.raster.watch import ChangedError, Watch, contents

__all__ = ["Job", "is_made", "open_job"]


@dataclass(frozen=True)
class Job:
    """Everything that a tile needs; a tile changes nothing.

    Attributes:
        known: of the scene.
        remarks: on the weights; see :func:`geomoe.pipeline.choice.remarks`.
        layers: what is made beside the image, in the order of ``outputs`` after the first.
        reference: what the model's router saw in training, where somebody asked how it routes.
        valid_share: share of sampled input pixels that are valid, 0 to 1.
        digest: SHA-256 of the scene's file.
        sources: name and SHA-256 of each of its files.
    """

    request: Request
    scene: Scene
    watch: Watch
    plan: UpscalePlan
    tiles: Tiles
    runner: Runner
    model: Upscaler
    radiometry: Radiometry
    known: KnownScene
    remarks: tuple[str, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[Output, ...]
    reference: RoutingReference | None
    valid_share: float
    digest: str
    sources: tuple[Mapping[str, str], ...]

    @property
    def key(self) -> dict[str, Any]:
        """Everything that the pixels depend on: a job with another key is another job."""
        return {
            "scene": self.digest,
            "bands": self.plan.bands,
            "nodata": {
                "said": _said(self.request.nodata),
                "value": None if self.scene.nodata is None else json_number(self.scene.nodata),
                "by": self.scene.nodata_by,
            },
            "radiometry": self.radiometry.describe(),
            "weights": self.model.hash,
            "model": self.model.name,
            # Of options that no tensor tells, such as how a border is cut, the weights know nothing.
            "options": self.model_options,
            "contract": self.model.contract.record(),
            **({"known": asdict(for_model(self.known))} if self.model.contract.informed else {}),
            "tile": self.plan.tile,
            "margin": self.tiles.margin,
            "outputs": [str(output.target.path) for output in self.outputs],
            "layers": [layer.name for layer in self.layers],
            "fallback": self.request.fallback,
            "conserve": self.request.conserve,
            "reliability": self.reference.digest() if self.reference else None,
            "version": geomoe_version(),
            # Another build of torch or another processor may round otherwise; what else does, is found out
            # when the job goes on.
            "torch": torch.__version__,
            "precision": self.runner.precision,
            "device": self.runner.hardware,
        }

    @property
    def model_options(self) -> dict[str, Any] | None:
        """Every option of the model, as JSON holds them; ``None`` of one that has none."""
        config = getattr(self.model.model, "config", None)
        return json.loads(json.dumps(asdict(config))) if is_dataclass(config) else None  # type: ignore[arg-type]

    def check_scene(self, *, whole: bool = False) -> None:
        """Raise ChangedError if the scene is not as it was, by its content if ``whole`` or in doubt."""
        doubtful = self.watch.changed()
        if (doubtful or whole) and contents(self.scene) != (self.digest, self.sources):
            raise ChangedError(doubtful or [self.scene.path])

    def run_all(self, numbers: Sequence[int]) -> Generator[tuple[int, tuple[list[Piece], bool]], None, None]:
        """Do some tiles, several at a time; gives the number and the result of each, in their order."""
        with self.runner.workers(self.plan.workers) as (pool, count):
            running: deque[tuple[int, Future[tuple[list[Piece], bool]]]] = deque()
            try:
                for number in numbers:
                    # Scenes are read by this thread alone: GDAL's handles are not to be shared.
                    tile = self.tiles[number]
                    data, valid = self._read(tile)
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

    def _read(self, tile: Tile) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Pixels ``[C, h, w]`` of a tile and their validity, from the scene as it was."""
        try:
            found = self.scene.read(window_of(tile.window, 1), self.plan.bands)
        except GeomoeError:
            self.check_scene()  # that it was changed says more than that it is damaged
            raise
        self.check_scene()
        return found

    def run(
        self, tile: Tile, data: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[list[Piece], bool]:
        """Do one tile: what goes to each output, and whether the model had to run."""
        scale, meta = self.model.contract.scale, self.outputs[0].meta
        core = (slice(None), *tile.inner)
        valid_core = valid[core]  # [C, h, w]
        any_valid: NDArray[np.bool_] = np.any(valid_core, axis=0)  # [h, w], valid to the data set
        if not any_valid.any():
            blank = np.zeros((len(self.plan.bands), *(n * scale for n in any_valid.shape)), dtype=np.float64)
            pixels = quantise(blank, upsample_mask(valid_core, scale), meta.dtype, meta.nodata)
            maps = [layer.blank(len(self.plan.bands), *any_valid.shape) for layer in self.layers]
        else:
            drawn, trace, surprise = self._model(tile, data, valid)
            means = data[core] if self.request.conserve else None
            pixels = quantise(drawn, upsample_mask(valid_core, scale), meta.dtype, meta.nodata, means)
            done = DoneTile(
                source=data[core],
                valid=valid_core,
                pixels=pixels,
                trace=trace,
                size=(tile.window.height, tile.window.width),
                inner=tile.inner,
                surprise=surprise,
            )
            maps = [
                np.where(any_valid, layer.pixels(done), layer.blank(len(self.plan.bands), *any_valid.shape))
                for layer in self.layers
            ]
        pieces: list[Piece] = [(pixels, upsample_mask(any_valid, scale))]
        return pieces + [(values, any_valid) for values in maps], bool(any_valid.any())

    def _model(
        self, tile: Tile, data: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], RoutingTrace, NDArray[np.float64] | None]:
        """The core of a tile in source units, ``[C, h * scale, w * scale]``; how it was routed and judged."""
        scale = self.model.contract.scale
        fine = (slice(None), *(slice(s.start * scale, s.stop * scale) for s in tile.inner))
        filled = fill_invalid(self.radiometry.to_model(data), valid)
        size = filled.shape[1:]
        first, unusual = RoutingTrace(), None if self.reference is None else np.zeros(size)

        def hear(trace: LastSignals) -> None:
            nonlocal first
            if unusual is not None and self.reference is not None:
                np.maximum(unusual, surprise(trace, self.reference, self.model.name, *size), out=unusual)
            first = first if len(first) else RoutingTrace(trace)

        wanted = self.reference is not None or any(layer.routed for layer in self.layers)
        result = self.runner(filled, hear if wanted else None)
        if not np.isfinite(result if self.request.conserve else result[fine]).all():
            raise GeomoeError(
                f"{self.model.name} gave NaN or infinity at columns {tile.core.x}+{tile.core.width}, "
                f"rows {tile.core.y}+{tile.core.height} of {self.scene.path.name}; "
                "check the scene for extreme values there, or use other weights"
            )
        if self.request.fallback and unusual is not None and (unusual > 1).any():
            bicubic = upsample_bicubic(torch.from_numpy(filled)[None], scale)[0].numpy()
            result = np.where(upsample_mask(unusual > 1, scale), bicubic, result)
        if self.request.conserve:
            drawn = self._conserved(np.where(valid, data, self.radiometry.to_source(filled)), result, fine)
        else:
            drawn = self.radiometry.to_source(result[fine])
        return drawn, first, None if unusual is None else unusual[tile.inner]

    def _conserved(
        self, source: NDArray[np.float64], result: NDArray[np.float32], fine: tuple[slice, ...]
    ) -> NDArray[np.float64]:
        """``fine`` of a result in source units, with the means of ``source``; within what the type holds."""
        meta = self.outputs[0].meta
        drawn = self.radiometry.to_source(result)  # [C, H * scale, W * scale]
        for low, high in zip(source, drawn, strict=True):  # band by band, as memory is promised
            whole, parts = (torch.from_numpy(band)[None, None] for band in (low, high))
            scale, bounds = self.model.contract.scale, limits(meta.dtype, meta.nodata)
            high[:] = conserve(whole, parts, scale, bounds)[0, 0].numpy()
        return drawn[fine]


@contextmanager
def open_job(request: Request) -> Iterator[Job]:
    """A job that can be done, with its scene open.

    Raises:
        GeomoeError: for bad input, or a job that cannot be done.
    """
    watch = Watch(request.src)
    with prepared(request) as found:
        model, plan = found.model, found.plan
        scene, radiometry, valid_share, known = _look(found.scene, plan.bands, found.known)
        digest, sources = contents(scene)
        if changed := watch.changed():  # what was read of it until now may be of another state
            raise ChangedError(changed)
        precision = plan.precision
        if request.precision == "auto":
            precision = _begun(found, digest) or precision
        said = remarks(known, model, found.why)
        notes = (*notes_of(scene, plan.bands, precision, found.device), *said)
        plan = replace(plan, notes=notes, precision=precision)
        metas = metadata_of(scene, plan.bands, model.contract.scale, found.layers)
        outputs = _outputs(found.targets, metas, found.layers, model)
        yield Job(
            request=request,
            scene=scene,
            watch=watch,
            plan=plan,
            tiles=Tiles(scene.width, scene.height, found.tiling, request.tile),
            runner=Runner(model, found.device, precision, for_model(known)),
            model=model,
            radiometry=radiometry,
            known=known,
            remarks=said,
            layers=found.layers,
            outputs=outputs,
            reference=found.reference,
            valid_share=valid_share,
            digest=digest,
            sources=sources,
        )


def _outputs(
    targets: Sequence[Target], metas: Sequence[CogMetadata], layers: Sequence[Layer], model: Upscaler
) -> tuple[Output, ...]:
    """The image and the maps, each with the tag of what it is beside those of all."""
    tags, names = _tags(model), (IMAGE, *(layer.name for layer in layers))
    scales = (model.contract.scale, *(1 for _ in layers))
    late: list[Callable[[], dict[str, str]]] = [dict, *(partial(_legend, layer) for layer in layers)]
    return tuple(
        Output(target, replace(meta, tags={**meta.tags, **tags, "GEOMOE_LAYER": name}), scale, legend)
        for target, meta, name, scale, legend in zip(targets, metas, names, scales, late, strict=True)
    )


def _legend(layer: Layer) -> dict[str, str]:
    return {"GEOMOE_LEGEND": json.dumps(layer.legend(), sort_keys=True)}


def _look(
    scene: Scene, bands: tuple[int, ...], known: KnownScene
) -> tuple[Scene, Radiometry, float, KnownScene]:
    """The scene with its fill, radiometry, share of valid pixels and noise; the sample ends with the call."""
    scene, sample = look(scene, bands)
    radiometry = decide_radiometry(scene.dtype, sample)
    return scene, radiometry, sample.valid_share, known.with_noise(sample, radiometry)


def _begun(found: Prepared, digest: str) -> Precision | None:
    """The precision of the job that was begun, by its key, if that has this scene and such a machine."""
    key = begun_in(found.targets[0].folder)
    same = {
        "scene": digest,
        "weights": found.model.hash,
        "torch": torch.__version__,
        "device": hardware(found.device),
    }
    precision = key.get("precision")
    alike = same.items() <= key.items() and precision in get_args(Precision)
    return cast(Precision, precision) if alike else None


def is_made(request: Request) -> bool:
    """Whether all files of a request were made from its scene, as it is, with its settings, by their records.

    A file without its item was made by nobody. Where ``auto`` is asked for, either precision that it may mean
    will do: machines of several kinds that share a manifest do not undo each other's work.

    Raises:
        GeomoeError: as `open_job` for a scene or model that cannot be used.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, path in {IMAGE: request.dst, **request.layers}.items():
        real = Path(os.path.realpath(path))  # as `Target` writes through a symbolic link
        try:
            item = read_item(item_path(real))
            with open_file(real) as made:
                if (made.tags.get("GEOMOE_LAYER"), made.tags.get("GEOMOE_ITEM")) != (name, seal(item)):
                    return False
        except GeomoeError:
            return False
        found[name] = _by_request(as_object(item["properties"].get("geomoe:configuration")))
    with open_scene(request.src, request.bands, request.nodata) as scene:
        known = known_of(scene)
        model, _ = model_for(request.model, request.scale, known)
        wanted = {
            "scene": scene.digest(),
            "bands": select_bands(scene, request.bands, model.contract.bands),
            "nodata": {"said": _said(request.nodata)},
            "weights": model.hash,
            "contract": model.contract.record(),
            **({"known": asdict(for_model(known))} if model.contract.informed else {}),
            "tile": tile_side(tiling_of(model), request.tile),
            "fallback": request.fallback,
            "conserve": request.conserve,
            **({"reliability": reference_of(model).digest()} if request.fallback else {}),
        }
    wanted = _by_request(json.loads(json.dumps(wanted)))
    asked: set[str | None] = {request.precision}
    if request.precision == "auto":
        asked = {"float32", "bfloat16"} if is_measured(model) else {"float32"}
    precisions = {record.get("precision") for record in found.values()}
    alike = len(precisions) == 1 and precisions <= asked
    own = {IMAGE: {}, **{layer.name: layer.record for layer in make_layers(request, model)}}
    return alike and all({**wanted, **own[name]}.items() <= record.items() for name, record in found.items())


def _by_request(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what only the pixels of a scene say: the noise, and what became of nodata."""
    known = {fact: value for fact, value in as_object(record.get("known")).items() if fact != "noise"}
    return {**record, "known": known, "nodata": as_object(record.get("nodata")).get("said")}


def _said(nodata: float | str | None) -> float | str | None:
    return json_number(nodata) if isinstance(nodata, float) else nodata


def _tags(model: Upscaler) -> Mapping[str, str]:
    """What a file says without its item. No time and no path: the same input gives the same bytes."""
    version = geomoe_version()
    return {
        "GEOMOE_VERSION": version,
        "GEOMOE_MODEL": model.name,
        "GEOMOE_WEIGHTS": model.hash,
        "TIFFTAG_SOFTWARE": f"geomoe {version}",
    }
