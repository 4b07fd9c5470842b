"""What a job on a scene would do and need, before it touches a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from geomoe.errors import GeomoeError
from geomoe.models import load
from geomoe.models.contract import Tiling
from geomoe.models.precision import Precision, pick_precision, slow_precision
from geomoe.models.reference import RoutingReference
from geomoe.pipeline.choice import fitting, remarks
from geomoe.pipeline.history import model_item_name
from geomoe.pipeline.layers import make_layers
from geomoe.pipeline.layers.base import Layer
from geomoe.pipeline.layers.reliability import reference_of
from geomoe.pipeline.memory import fitting_workers
from geomoe.pipeline.request import AUTO, Path, Request
from geomoe.pipeline.runner import (
    Predictor,
    activations_of,
    band_groups,
    check_scale,
    is_measured,
    options_of,
    pick_device,
    tiling_of,
)
from geomoe.pipeline.targets import refuse_overlap, targets_of
from geomoe.pipeline.tiles import Tiles, tile_side
from geomoe.pipeline.writers import writer_of
from geomoe.pipeline.writers.base import Writer
from geomoe.raster.read.bands import band_names, left_out
from geomoe.raster.read.known import KnownScene, known_of
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.cog import estimated_bytes
from geomoe.raster.write.metadata import CogMetadata
from geomoe.raster.write.target import Target, check_space

__all__ = [
    "MAX_OUTPUT_BANDS",
    "Prepared",
    "ScenePlan",
    "asked_of",
    "job_needs",
    "metadata_of",
    "model_for",
    "notes_of",
    "plan_scene",
    "prepared",
    "tiles_of",
]

# A COG of GDAL 3.10 keeps the bands of a pixel together: its blocks grow with their number.
MAX_OUTPUT_BANDS = 256
_MAX_SIDE = 2**31 - 1


@dataclass(frozen=True)
class ScenePlan:
    """A job, described.

    Attributes:
        size, output_size: width and height in pixels.
        dtype, output_dtype: of the scene and of the first file.
        bands: 1-based, with their names in ``names``.
        groups: bands (1-based) of each pass of the model over a tile.
        notes: what its user should know of how the scene was understood and of the weights, a sentence each.
        precision: in which the model computes.
        tile: side of a core in input pixels.
        overlap: pixels on each side of a core over which class probabilities are blended; 0 where tiles are
            exact, or what the model gives is not blended.
        scratch_bytes, output_bytes: on the disk of the outputs; both exist at once for a while.
        workers: tiles that are done at a time.
        memory_bytes: an estimate of the peak, which does not depend on the size of the scene.
    """

    size: tuple[int, int]
    output_size: tuple[int, int]
    dtype: str
    output_dtype: str
    bands: tuple[int, ...]
    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]
    precision: Precision
    tile: int
    overlap: int
    tiles: int
    workers: int
    scratch_bytes: int
    output_bytes: int
    memory_bytes: int

    @property
    def passes(self) -> int:
        """Runs of the model at most: tiles without a valid pixel are skipped."""
        return self.tiles * len(self.groups)


@dataclass(frozen=True)
class Prepared:
    """What a request comes to by the header of its scene: everything is found that can be refused before.

    Attributes:
        scene: open.
        known: of the scene.
        model: for it; ``why`` it is that one, empty where its user said so.
        writer: of what the model gives.
        layers: what is made beside it.
        reference: what the model's router saw in training, where it is asked how it routes.
        tiling: by which tiles are cut.
        targets: of the first file and of each layer, writable and with room enough.
        metas: of the same, without tags of geomoe.
        plan: of the job.
    """

    scene: Scene
    known: KnownScene
    model: Predictor
    why: str
    writer: Writer
    layers: tuple[Layer, ...]
    reference: RoutingReference | None
    device: torch.device
    tiling: Tiling
    targets: tuple[Target, ...]
    metas: tuple[CogMetadata, ...]
    plan: ScenePlan


def plan_scene(src: Path, dst: Path, **options: Any) -> ScenePlan:
    """What `upscale` would do with the same arguments; reads the scene's header only and writes nothing.

    Raises:
        GeomoeError: for everything that `upscale` would refuse before it reads pixels.
    """
    with prepared(Request.of(src, dst, **options)) as found:
        notes = remarks(found.scene.dtype, found.known, found.model, found.why)
        return replace(found.plan, notes=(*found.plan.notes, *notes))


@contextmanager
def prepared(request: Request) -> Iterator[Prepared]:
    """A request with its scene open.

    Raises:
        GeomoeError: if the scene, the model, a layer, a target, the bands or the size of the output cannot be
            had.
    """
    device = pick_device(request.device)
    with request.open() as scene:
        known = known_of(scene)
        model, why = model_for(request.model, request.scale, known)
        targets = targets_of(request.places, overwrite=request.overwrite)
        item = model_item_name(model.name, model.hash, options_of(model))
        weights = getattr(model, "path", None)
        refuse_overlap(targets, scene, request.sources, weights=weights, item=item)
        writer, layers, reference = asked_of(model, request)
        bands = writer.bands(scene, request.bands)
        precision = pick_precision(request.precision, device, is_measured(model))
        tiling = tiling_of(model).conserving() if request.conserve else tiling_of(model)
        metas = metadata_of(scene, bands, writer, layers)
        plan = job_needs(
            scene, bands, model, writer, metas, request.tile, device, precision, request.memory, tiling
        )
        room = zip(targets, metas, strict=True)
        check_space([(t.path, sum(estimated_bytes(m)) - t.work_bytes()) for t, m in room])
        yield Prepared(
            scene, known, model, why, writer, layers, reference, device, tiling, tuple(targets),
            tuple(metas), plan,
        )  # fmt: skip


def asked_of(model: Predictor, request: Request) -> tuple[Writer, tuple[Layer, ...], RoutingReference | None]:
    """The writer and the maps that a request wants of a model; what its routing is compared with, if it is.

    Raises:
        GeomoeError: where the model has no such output or map, or its routing cannot be judged.
    """
    writer = writer_of(model, fallback=request.fallback, conserve=request.conserve)
    layers = make_layers(request, model)
    judged = request.fallback or any(layer.judged for layer in layers)
    return writer, layers, reference_of(model) if judged else None


def model_for(model: str | Predictor, scale: int | None, known: KnownScene) -> tuple[Predictor, str]:
    """The model for a scene of which this is known, and why it is that one; empty where its user said so.

    Args:
        model: as of a `Request`, and ``scale``.
        scale: output pixels along one input pixel; None for the model's own.
        known: of the scene.

    Raises:
        GeomoeError: where there is none, or one for another scale.
    """
    if model == AUTO and scale is not None:
        return fitting(known, scale)
    found = load(model, scale) if isinstance(model, str) else model
    check_scale(found, scale)
    return found, ""


def metadata_of(
    scene: Scene, bands: Sequence[int], writer: Writer, layers: Iterable[Layer]
) -> list[CogMetadata]:
    """Metadata of the first file and of each layer, without tags of geomoe."""
    return [writer.metadata(scene, bands), *(layer.metadata(scene, bands) for layer in layers)]


def job_needs(
    scene: Scene,
    bands: tuple[int, ...],
    model: Predictor,
    writer: Writer,
    outputs: Sequence[CogMetadata],
    tile: int | None,
    device: torch.device,
    precision: Precision,
    memory: int | None,
    tiling: Tiling,
) -> ScenePlan:
    """The plan of a job on an open scene; tiles are cut by ``tiling``.

    Raises:
        GeomoeError: if the output would be larger than a GeoTIFF may be, or memory does not suffice.
    """
    scale = writer.scale
    if outputs[0].count > MAX_OUTPUT_BANDS:
        raise GeomoeError(
            f"{outputs[0].count} bands are too many for one COG, which holds {MAX_OUTPUT_BANDS}; "
            "choose some with --bands"
        )
    if max(scene.width, scene.height) * scale > _MAX_SIDE:
        size = f"{scene.width} x {scene.height}"
        raise GeomoeError(f"{size} pixels at scale {scale} are too many for a GeoTIFF; cut the scene")
    sizes = [estimated_bytes(meta) for meta in outputs]
    tiles = tiles_of(scene, writer, tiling, tile)
    idle, each = _memory(scene, model, writer, len(bands), tiles, tile_side(tiling, tile))
    workers = fitting_workers(idle, each, len(tiles), device, memory)
    return ScenePlan(
        size=(scene.width, scene.height),
        output_size=(scene.width * scale, scene.height * scale),
        dtype=scene.dtype,
        output_dtype=outputs[0].dtype,
        bands=bands,
        names=band_names(scene, bands),
        groups=tuple(band_groups(bands, model.contract.bands)),
        notes=notes_of(scene, bands, writer, precision, device),
        precision=precision,
        tile=tile_side(tiling, tile),
        overlap=tiles.overlap,
        tiles=len(tiles),
        workers=workers,
        scratch_bytes=sum(scratch for scratch, _ in sizes),
        output_bytes=sum(cog for _, cog in sizes),
        memory_bytes=idle + workers * each,
    )


def tiles_of(scene: Scene, writer: Writer, tiling: Tiling, tile: int | None) -> Tiles:
    """The tiles of a job; they are blended where they are not exact and what the model gives can be."""
    return Tiles(scene.width, scene.height, tiling, tile, blend=writer.blends and not tiling.exact)


def notes_of(
    scene: Scene, bands: tuple[int, ...], writer: Writer, precision: Precision, device: torch.device
) -> tuple[str, ...]:
    """What the user should know of how a scene is understood and computed, a sentence each."""
    order = writer.note(scene, bands)
    notes = [*scene.notes, *([order] if order else [])]
    # Of other bands it was the user who left them out.
    if set(bands) == {*scene.data_bands} and (classes := left_out(scene, bands)):
        notes.append(classes)
    if scene.transform is None and not scene.gcps and scene.rpcs is None:
        notes.append("the scene has no georeference, and neither will the output")
    if scene.alpha is not None:
        notes.append(
            f"band {scene.alpha} is tagged as alpha and taken for the mask; if it is data, say so: "
            f"gdal_edit.py -colorinterp_{scene.alpha} undefined {scene.path.name}"
        )
    if scene.neighbours:
        notes.append(f"not read: {', '.join(scene.neighbours)}")
    if slow := slow_precision(precision, device):
        notes.append(slow)
    return tuple(notes)


def _memory(
    scene: Scene, model: Predictor, writer: Writer, bands: int, tiles: Tiles, tile: int
) -> tuple[int, int]:
    """Bytes that a job takes without a tile, and that each tile takes while it is done."""
    side = tile + 2 * tiles.margin
    pixels = min(side, scene.width) * min(side, scene.height)
    weights = list(model.model.parameters())
    activations = pixels * (_BESIDE * activations_of(model) or _guess(weights, bands, writer.scale))
    arrays = pixels * (16 * bands + writer.channels(bands) * writer.scale**2 * 24)
    sample = 16_000_000 * 4
    parameters = sum(w.numel() * 4 for w in weights)
    # Of a row of tiles and the next, what they give to each other, and their source.
    waiting = 2 * tiles.columns + 3 if tiles.overlap else 0
    waits = pixels * (4 * writer.channels(bands) + 9 * bands + _MAPS)
    return int(scene.cache_bytes + _LIBRARIES + parameters + sample + waiting * waits), int(
        activations + arrays
    )


def _guess(weights: Sequence[torch.nn.Parameter], bands: int, scale: int) -> int:
    """Bytes for each pixel of a model whose card does not say: weights of 0.1, and those that have no card.

    Measured on mfg_hmoe and mfg_hmoe_light at scales 2, 4 and 8: about three and a half maps of the widest
    layer live at once; at large scales the upsampled image and its features come to matter.
    """
    widest = max((w.shape[0] for w in weights if w.ndim >= 2), default=bands)
    return 4 * (4 * widest + 24 * scale**2)


_BESIDE = 1.3
"""What is taken over what features take: by kernels for themselves, and by the heap between its pieces."""
_MAPS = 8
"""Bytes a pixel of maps of routing, which wait with a tile."""
# torch, GDAL and scipy, loaded and idle.
_LIBRARIES = 300 * 2**20
