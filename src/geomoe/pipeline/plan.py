"""What an upscaling job would do and need, before it touches a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Unpack

import torch

from geomoe.errors import GeomoeError
from geomoe.models import ModelContract
from geomoe.models.precision import Precision, pick_precision, slow_precision
from geomoe.pipeline.choice import remarks
from geomoe.pipeline.history import IMAGE, model_item_name
from geomoe.pipeline.layers.base import Layer, of_layer
from geomoe.pipeline.layers.reliability import Judge
from geomoe.pipeline.memory import fitting_workers
from geomoe.pipeline.request import Options, Path, Request
from geomoe.pipeline.runner import Upscaler, band_groups, is_measured, pick_device
from geomoe.pipeline.targets import refuse_overlap, targets_of
from geomoe.pipeline.tiles import Tiles, tile_side
from geomoe.raster.bands import band_names, band_order, left_out, select_bands
from geomoe.raster.cog import estimated_bytes
from geomoe.raster.known import known_of
from geomoe.raster.metadata import CogMetadata, carried_over
from geomoe.raster.open import open_scene
from geomoe.raster.scene import Scene
from geomoe.raster.target import Target, check_space

__all__ = [
    "IMAGE",
    "MAX_OUTPUT_BANDS",
    "UpscalePlan",
    "job_needs",
    "notes_of",
    "output_metadata",
    "plan_upscale",
    "prepare",
]

# A COG of GDAL 3.10 keeps the bands of a pixel together: its blocks grow with their number.
MAX_OUTPUT_BANDS = 256
_MAX_SIDE = 2**31 - 1


@dataclass(frozen=True)
class UpscalePlan:
    """A job, described.

    Attributes:
        size, output_size: width and height in pixels.
        bands: 1-based, with their names in ``names``.
        groups: bands (1-based) of each pass of the model over a tile.
        notes: what its user should know of how the scene was understood and of the weights, a sentence each.
        precision: in which the model computes.
        tile: side of a core in input pixels.
        scratch_bytes, output_bytes: on the disk of the outputs; both exist at once for a while.
        workers: tiles that are done at a time.
        memory_bytes: an estimate of the peak, which does not depend on the size of the scene.
    """

    size: tuple[int, int]
    output_size: tuple[int, int]
    dtype: str
    bands: tuple[int, ...]
    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]
    precision: Precision
    tile: int
    tiles: int
    workers: int
    scratch_bytes: int
    output_bytes: int
    memory_bytes: int

    @property
    def passes(self) -> int:
        """Runs of the model at most: tiles without a valid pixel are skipped."""
        return self.tiles * len(self.groups)


def plan_upscale(src: Path, dst: Path, **options: Unpack[Options]) -> UpscalePlan:
    """What `upscale` would do with the same arguments; reads the scene's header only and writes nothing.

    Raises:
        GeomoeError: for everything that `upscale` would refuse before it reads pixels.
    """
    request = Request(src, dst, **options)
    with open_scene(src, request.bands, request.nodata) as scene:
        known = known_of(scene)
        model, why = request.loaded(known)
        plan = prepare(scene, request, model, pick_device(request.device))[0]
    return replace(plan, notes=(*plan.notes, *remarks(known, model, why)))


def prepare(
    scene: Scene, request: Request, model: Upscaler, device: torch.device
) -> tuple[UpscalePlan, list[Target]]:
    """The plan of a job on an open scene, and its targets, found writable and large enough.

    Raises:
        GeomoeError: if a target, the bands or the size of the output cannot be had.
    """
    places = {"output": request.dst, **{layer.name: path for layer, path in request.layers.items()}}
    targets = targets_of(places, overwrite=request.overwrite)
    weights = getattr(model, "path", None)
    refuse_overlap(targets, scene, request.src, weights=weights, item=model_item_name(model.name, model.hash))
    if request.judged:
        Judge(model)
    chosen = select_bands(scene, request.bands, model.contract.bands)
    precision = pick_precision(request.precision, device, is_measured(model))
    contract = request.contract(model)
    plan = job_needs(
        scene, chosen, model, request.layers, request.tile, device, precision, request.memory, contract
    )
    outputs = output_metadata(scene, chosen, model, request.layers, {})
    check_space(
        [(t.path, sum(estimated_bytes(m)) - t.work_bytes()) for t, m in zip(targets, outputs, strict=True)]
    )
    return plan, targets


def job_needs(
    scene: Scene,
    bands: tuple[int, ...],
    model: Upscaler,
    layers: Iterable[Layer],
    tile: int | None,
    device: torch.device,
    precision: Precision,
    memory: int | None,
    contract: ModelContract | None = None,
) -> UpscalePlan:
    """The plan of a job on an open scene; tiles are cut by ``contract``, that of the model if ``None``.

    Raises:
        GeomoeError: if the output would be larger than a GeoTIFF may be, or memory does not suffice.
    """
    contract = contract or model.contract
    scale = contract.scale
    if len(bands) > MAX_OUTPUT_BANDS:
        raise GeomoeError(
            f"{len(bands)} bands are too many for one COG, which holds {MAX_OUTPUT_BANDS}; "
            "choose some with --bands"
        )
    if max(scene.width, scene.height) * scale > _MAX_SIDE:
        size = f"{scene.width} x {scene.height}"
        raise GeomoeError(f"{size} pixels at scale {scale} are too many for a GeoTIFF; cut the scene")
    outputs = output_metadata(scene, bands, model, layers, {})
    sizes = [estimated_bytes(meta) for meta in outputs]
    tiles = len(Tiles(scene.width, scene.height, contract, tile))
    idle, each = _memory(scene, model, outputs[0], contract, tile)
    workers = fitting_workers(idle, each, tiles, device, memory)
    return UpscalePlan(
        size=(scene.width, scene.height),
        output_size=(scene.width * scale, scene.height * scale),
        dtype=scene.dtype,
        bands=bands,
        names=band_names(scene, bands),
        groups=tuple(band_groups(bands, contract.bands)),
        notes=notes_of(scene, bands, precision, device),
        precision=precision,
        tile=tile_side(contract, tile),
        tiles=tiles,
        workers=workers,
        scratch_bytes=sum(scratch for scratch, _ in sizes),
        output_bytes=sum(cog for _, cog in sizes),
        memory_bytes=idle + workers * each,
    )


def notes_of(
    scene: Scene, bands: tuple[int, ...], precision: Precision, device: torch.device
) -> tuple[str, ...]:
    """What the user should know of how a scene is understood and computed, a sentence each."""
    order = band_order(scene, bands)
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


def output_metadata(
    scene: Scene,
    bands: tuple[int, ...],
    model: Upscaler,
    layers: Iterable[Layer],
    tags: Mapping[str, str],
) -> list[CogMetadata]:
    """Metadata of the image and of each layer; ``tags``, and one that says which it is, are added."""
    image = carried_over(scene, bands, model.contract.scale, {**tags, **of_layer(IMAGE, model)})
    return [
        image,
        *(layer.metadata(scene, bands, model, {**tags, **of_layer(layer.name, model)}) for layer in layers),
    ]


def _memory(
    scene: Scene, model: Upscaler, output: CogMetadata, contract: ModelContract, tile: int | None
) -> tuple[int, int]:
    """Bytes that a job takes without a tile, and that each tile takes while it is done."""
    side = tile_side(contract, tile) + 2 * contract.margin
    pixels = min(side, scene.width) * min(side, scene.height)
    weights = list(model.model.parameters())
    widest = max((w.shape[0] for w in weights if w.ndim >= 2), default=contract.bands)
    # Measured on mfg_hmoe and mfg_hmoe_light at scales 2, 4 and 8: about three and a half maps of the widest
    # layer live at once; at large scales the upsampled image and its features come to matter.
    activations = pixels * 4 * (4 * widest + 24 * contract.scale**2)
    arrays = pixels * output.count * (16 + contract.scale**2 * 24)
    sample = 16_000_000 * 4
    parameters = sum(w.numel() * 4 for w in weights)
    return int(scene.cache_bytes + _LIBRARIES + parameters + sample), int(activations + arrays)


# torch, GDAL and scipy, loaded and idle.
_LIBRARIES = 300 * 2**20
