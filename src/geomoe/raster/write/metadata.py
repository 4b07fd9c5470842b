"""What an output says about itself: what its source said, on the finer grid, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC

from geomoe.raster.read.classes import ClassValue
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.grid import upscaled, upscaled_gcps, upscaled_rpcs

__all__ = ["CogMetadata", "carried_over", "same_place"]

# No longer true of the output, or said by a field of their own.
_DROPPED = ("OVR_RESAMPLING_ALG", "NODATA_VALUES", "TIFFTAG_MINSAMPLEVALUE", "TIFFTAG_MAXSAMPLEVALUE")
# Names that rasterio's update_tags() takes for arguments of its own.
_UNWRITABLE = ("ns", "bidx", "self")
_RESOLUTIONS = ("TIFFTAG_XRESOLUTION", "TIFFTAG_YRESOLUTION")


@dataclass(frozen=True)
class CogMetadata:
    """Everything but the pixels. Per-band tuples have ``count`` entries.

    Attributes:
        mask: whether validity is written as an internal mask.
        nan_nodata: declare NaN as nodata if any NaN is written (a float scene that declared nothing).
        overviews: how overviews are resampled.
        classes: what the values of the one band stand for, which has their colours then.
    """

    width: int
    height: int
    count: int
    dtype: str
    nodata: float | None
    mask: bool
    nan_nodata: bool
    transform: Affine | None
    crs: CRS | None
    gcps: tuple[GroundControlPoint, ...]
    gcps_crs: CRS | None
    rpcs: RPC | None
    descriptions: tuple[str | None, ...]
    units: tuple[str | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    colorinterp: tuple[ColorInterp, ...]
    tags: Mapping[str, str]
    band_tags: tuple[Mapping[str, str], ...]
    namespaces: Mapping[str, Mapping[str, str]]
    overviews: Literal["average", "mode", "nearest"] = "average"
    classes: tuple[ClassValue, ...] = ()

    @property
    def own_domains(self) -> bool:
        """Whether tags of other domains can keep their domain, and need not go to the default one.

        GDAL 3.10 copies other domains only on request, and then forgets the tags of bands.
        """
        return bool(self.namespaces) and not any(self.band_tags)


def carried_over(scene: Scene, bands: Sequence[int], scale: int, tags: Mapping[str, str]) -> CogMetadata:
    """The metadata of ``bands`` (1-based) of a scene on a grid ``scale`` times finer.

    Statistics are dropped, since they are of other pixels; ``tags`` are added and win over the source's own.
    """
    place = [b - 1 for b in bands]
    return CogMetadata(
        width=scene.width * scale,
        height=scene.height * scale,
        count=len(place),
        dtype=scene.dtype,
        nodata=scene.nodata,
        mask=scene.validity in ("mask", "alpha"),
        nan_nodata=scene.validity == "nan",
        transform=None if scene.transform is None else upscaled(scene.transform, scale),
        crs=scene.crs,
        gcps=tuple(upscaled_gcps(scene.gcps, scale)),
        gcps_crs=scene.gcps_crs,
        rpcs=None if scene.rpcs is None else upscaled_rpcs(scene.rpcs, scale),
        descriptions=tuple(scene.descriptions[i] for i in place),
        units=tuple(scene.units[i] for i in place),
        scales=tuple(scene.scales[i] for i in place),
        offsets=tuple(scene.offsets[i] for i in place),
        colorinterp=tuple(scene.colorinterp[i] for i in place),
        tags={**_dataset_tags(scene.tags, scale), **tags},
        band_tags=tuple(_still_true(scene.band_tags[i]) for i in place),
        namespaces={name: _still_true(tags) for name, tags in scene.namespaces.items()},
    )


def same_place(
    scene: Scene,
    *,
    dtype: str,
    descriptions: tuple[str, ...],
    scales: tuple[float, ...],
    nodata: float,
    overviews: Literal["average", "mode"] = "mode",
    classes: tuple[ClassValue, ...] = (),
) -> CogMetadata:
    """Metadata of a map on the scene's own grid, with bands of its own; ``classes`` of one of uint8 alone."""
    count = len(descriptions)
    first = ColorInterp.palette if classes else ColorInterp.gray
    return CogMetadata(
        width=scene.width,
        height=scene.height,
        count=count,
        dtype=dtype,
        nodata=nodata,
        mask=False,
        nan_nodata=False,
        transform=scene.transform,
        crs=scene.crs,
        gcps=scene.gcps,
        gcps_crs=scene.gcps_crs,
        rpcs=scene.rpcs,
        descriptions=descriptions,
        units=(None,) * count,
        scales=scales,
        offsets=(0.0,) * count,
        colorinterp=(first, *(ColorInterp.undefined,) * (count - 1)),
        tags={k: v for k, v in scene.tags.items() if k == "AREA_OR_POINT"},
        band_tags=({},) * count,
        namespaces={},
        overviews=overviews,
        classes=classes,
    )


def _still_true(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        k: v for k, v in tags.items() if not k.startswith("STATISTICS_") and k not in _DROPPED + _UNWRITABLE
    }


def _dataset_tags(tags: Mapping[str, str], scale: int) -> dict[str, str]:
    kept = _still_true(tags)
    if not kept.get("TIFFTAG_RESOLUTIONUNIT", "1").startswith("1"):
        for name in _RESOLUTIONS:  # pixels per inch or centimetre
            if name in kept:
                kept[name] = repr(float(kept[name]) * scale)
    return kept
