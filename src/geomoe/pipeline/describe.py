"""What was understood of a scene, in words."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from rasterio.enums import ColorInterp

from geomoe.printable import counted
from geomoe.raster.formats.open import open_scene
from geomoe.raster.read.bands import band_names, band_order, left_out, select_bands
from geomoe.raster.read.known import KnownScene, known_of
from geomoe.raster.read.names import listed
from geomoe.raster.read.radiometry import Radiometry, decide_radiometry
from geomoe.raster.read.sample import SceneSample, look
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.target import in_bytes

if TYPE_CHECKING:
    from geomoe.pipeline.plan import ScenePlan
    from geomoe.pipeline.runner import Predictor
    from geomoe.pipeline.writers.base import Writer

__all__ = ["describe_scene"]


def describe_scene(
    src: str | os.PathLike[str],
    *,
    model: str | Predictor | None = None,
    scale: int | None = None,
    bands: str | Sequence[str | int] | None = None,
    nodata: float | Literal["none"] | None = None,
    tile: int | None = None,
) -> dict[str, str]:
    """Facts about a scene, in the order in which they are to be read.

    Args:
        src: a scene, as for `upscale`.
        model: if given, what it would do with the scene is told too; as for `upscale`.
        scale: that the model is to be for; its own if ``None``.
        bands: names or 1-based numbers; all bands with data if ``None``.
        nodata: as for `upscale`.
        tile: as for `upscale`.

    Raises:
        GeomoeError: for a scene that `upscale` would refuse, but for one of classes alone where neither model
            nor bands are asked for.
    """
    with open_scene(src, bands, nodata) as scene:
        if model is None and bands is None and _holds_classes_alone(scene):
            return {
                **_place(scene, range(1, scene.count + 1)),
                "holds": "classes, flags or numbers of colours alone; no measurements for a model",
            }
        known = known_of(scene)
        predictor, why, writer = (None, "", None) if model is None else _predictor(model, scale, known)
        chosen = writer.bands(scene, bands) if writer else select_bands(scene, bands, 1)
        scene, sample = look(scene, chosen)
        radiometry = _brought(predictor, scene, sample)
        known = known.with_noise(sample, radiometry)
        facts = _place(scene, chosen)
        if others := left_out(scene, chosen):
            facts["left out"] = others.removeprefix("bands left out: ")
        if scene.acquired:
            facts["acquired"] = scene.acquired
        if scene.notes:
            facts["decided"] = "; ".join(scene.notes)
        if order := writer.note(scene, chosen) if writer else band_order(scene, chosen):
            facts["order"] = order
        empty = [n for n, v in zip(band_names(scene, chosen), sample.values, strict=True) if not v.size]
        share = f"{sample.valid_share:.1%} of pixels valid"
        facts["validity"] = f"{_valid_by(scene)}; {share}"
        if empty:
            facts["validity"] += f", none in {', '.join(empty)}"
        facts["values"] = _values(scene, chosen, sample)
        facts["radiometry"] = _radiometry(scene, radiometry, chosen)
        facts["known"] = known.describe() or "nothing of its sensor, pixels and noise"
        if scene.neighbours:
            facts["not read"] = ", ".join(scene.neighbours)
        if predictor is not None and writer is not None:
            from geomoe.models.precision import pick_precision
            from geomoe.pipeline.choice import remarks
            from geomoe.pipeline.plan import job_needs, metadata_of
            from geomoe.pipeline.runner import is_measured, pick_device, tiling_of

            device = pick_device("auto")
            precision = pick_precision("auto", device, is_measured(predictor))
            metas = metadata_of(scene, chosen, writer, ())
            tiling = tiling_of(predictor)
            needs = job_needs(scene, chosen, predictor, writer, metas, tile, device, precision, None, tiling)
            facts["upscale" if writer.scale > 1 else "predict"] = _job(needs, predictor, writer)
            if said := remarks(scene.dtype, known, predictor, why):
                facts["remarks"] = "; ".join(said)
    return facts


def _predictor(model: str | Predictor, scale: int | None, known: KnownScene) -> tuple[Predictor, str, Writer]:
    """The model for a scene, why it is that one, and the writer of what it gives."""
    from geomoe.pipeline.plan import model_for  # with torch, which no scene needs
    from geomoe.pipeline.writers import writer_of

    found, why = model_for(model, scale or (4 if isinstance(model, str) else None), known)
    return found, why, writer_of(found)


def _holds_classes_alone(scene: Scene) -> bool:
    classes = scene.class_bands and not scene.data_bands
    return bool(classes) or ColorInterp.palette in scene.colorinterp


def _place(scene: Scene, bands: Iterable[int]) -> dict[str, str]:
    """Where a scene lies and what its bands are."""
    return {
        "scene": str(scene.path),
        "size": f"{scene.width} x {scene.height} pixels, {counted(scene.count, 'band')}, {scene.dtype}",
        "crs": _crs(scene),
        "pixel": _pixel(scene),
        "bands": ", ".join(_named(scene, band) for band in bands),
    }


def _brought(model: Predictor | None, scene: Scene, sample: SceneSample) -> Radiometry:
    """To the range of a model, or of most of them."""
    if model is None:
        return decide_radiometry(scene.dtype, sample)
    from geomoe.pipeline.runner import radiometry_of  # with torch

    return radiometry_of(model, scene, sample)


def _named(scene: Scene, band: int) -> str:
    others = ", ".join(scene.aliases[band - 1])
    return f"{band} {band_names(scene, [band])[0]}{f' ({others})' if others else ''}"


_MANY = 0.05
_VALIDITY = {
    "all": "every pixel counts",
    "nodata": "from nodata, band by band",
    "mask": "from the mask inside the file",
    "alpha": "from the alpha band",
    "nan": "no nodata declared; NaN and infinite values are not valid",
}


def _job(plan: ScenePlan, model: Predictor, writer: Writer) -> str:
    width, height = plan.output_size
    return (
        f"{model.name}, {writer.does}: {width} x {height} pixels, "
        f"{counted(plan.tiles, 'tile')} of {plan.tile}, {plan.passes} passes in {plan.precision}, "
        f"about {in_bytes(plan.memory_bytes)} of memory, {in_bytes(plan.output_bytes)} written "
        f"and {in_bytes(plan.scratch_bytes)} more while it runs"
    )


def _valid_by(scene: Scene) -> str:
    if scene.nodata is None:
        return _VALIDITY[scene.validity] + (", by --nodata none" if scene.nodata_by == "user" else "")
    how = {
        "scene": _VALIDITY[scene.validity],
        "user": "from --nodata, band by band",
        "area": "undeclared, where all bands have one value",
    }
    return f"{how[scene.nodata_by]} (nodata {scene.nodata:g})"


def _crs(scene: Scene) -> str:
    placed = []
    if scene.transform is not None:
        placed.append("transform")
    if scene.gcps:
        placed.append(f"{len(scene.gcps)} ground control points")
    if scene.rpcs is not None:
        placed.append("RPCs")
    crs = scene.crs or scene.gcps_crs
    return f"{crs.to_string() if crs else 'none'}, placed by {' and '.join(placed) or 'nothing'}"


def _pixel(scene: Scene) -> str:
    if scene.transform is None:
        return "unknown"
    t = scene.transform
    width, height = math.hypot(t.a, t.d), math.hypot(t.b, t.e)
    unit = (
        "" if scene.crs is None else (" degrees" if scene.crs.is_geographic else f" {scene.crs.linear_units}")
    )
    turned = ", rotated" if t.b or t.d else ""
    stands_for = scene.tags.get("AREA_OR_POINT", "Area").lower()
    return f"{width:g} x {height:g}{unit}{turned}, {stands_for}"


def _values(scene: Scene, bands: Sequence[int], sample: SceneSample) -> str:
    """What numbers stand for, by scale and offset, and who says so."""
    said = [(scene.scales[b - 1], scene.offsets[b - 1], scene.scaled_by[b - 1]) for b in bands]
    if not any(by for _, _, by in said):
        return "as stored; no scale or offset is declared"
    each = []
    for scale, offset, by in dict.fromkeys(said):
        names = zip(band_names(scene, bands), said, strict=True)
        alike = [name for name, own in names if own == (scale, offset, by)]
        how = f"stored * {scale:g}{f' {offset:+g}' if offset else ''}, by {by}" if by else "as stored"
        each.append(how if len(alike) == len(bands) else f"{listed(alike)}: {how}")
    below = max(
        float((values * scale + offset < 0).mean()) if offset < 0 and values.size else 0.0
        for values, (scale, offset, _) in zip(sample.values, said, strict=True)
    )
    if below > _MANY:
        each.append(
            f"by which up to {below:.0%} of a band are negative: the offset may be in the values already"
        )
    return "; ".join(each)


def _radiometry(scene: Scene, radiometry: Radiometry, bands: Sequence[int]) -> str:
    if scene.dtype == "uint8" or radiometry.plain:
        return radiometry.rule
    spans = zip(band_names(scene, bands), radiometry.low, radiometry.high, strict=True)
    return f"{radiometry.rule}: " + ", ".join(f"{name} {low:g}..{high:g}" for name, low, high in spans)
