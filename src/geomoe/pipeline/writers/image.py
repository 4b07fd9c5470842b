"""An image of the scene, in its type and units, on its grid or a finer one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geomoe.data.super_resolution.degradation import interpolated
from geomoe.errors import GeomoeError
from geomoe.layers.super_resolution.conserve import conserve
from geomoe.pipeline.runner import Predictor, join_bands
from geomoe.pipeline.writers.base import RanTile
from geomoe.raster.read.bands import band_order, select_bands
from geomoe.raster.read.classes import ClassValue
from geomoe.raster.read.radiometry import Radiometry, limits, quantise
from geomoe.raster.read.scene import Scene
from geomoe.raster.read.validity import upsample_mask
from geomoe.raster.write.metadata import CogMetadata, carried_over

__all__ = ["ImageWriter", "writer"]


class ImageWriter:
    """Any number of bands, in groups of as many as the model takes.

    Args:
        scale: pixels along one of the scene.
        bands: that the model takes at once.
        fallback: interpolation where routing is unlike that of training.
        conserve: keep the mean over each pixel of the scene.
    """

    name = "image"
    takes = ""
    classes: tuple[ClassValue, ...] = ()
    blends = False

    def __init__(self, scale: int, bands: int, fallback: bool, conserve: bool) -> None:
        self.scale, self._bands, self._fallback, self._conserve = scale, bands, fallback, conserve
        self.title = self.does = self.noun = "image"
        self.caveat = "Its values are the model's estimate, not measured."
        self.gives, self.mlm_task = "As high and as wide as the input, in its range.", "regression"
        if scale > 1:
            self.title, self.does = f"super-resolved {scale} times", f"super-resolution {scale} times"
            self.noun, self.mlm_task = "super-resolved image", "super-resolution"
            self.caveat = "What is finer than the source's pixels is the model's estimate, not measured."
            self.gives = f"{scale} times as high and as wide as the input, in its range."

    def bands(self, scene: Scene, spec: str | Sequence[str | int] | None) -> tuple[int, ...]:
        if len(scene.parts) > 1:
            raise GeomoeError("the model makes an image, of one date; leave out --after")
        return select_bands(scene, spec, self._bands)

    def note(self, scene: Scene, bands: Sequence[int]) -> str | None:
        return band_order(scene, bands)

    def channels(self, bands: int) -> int:
        return bands

    def there(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.any(valid, axis=0)
        return found

    def told(self, valid: NDArray[np.bool_]) -> Mapping[str, NDArray[np.bool_]]:
        return {}

    def lacking(self, scene: Scene, filled: Sequence[bool]) -> tuple[str, ...]:
        return ()

    def join(
        self, passes: Iterable[tuple[tuple[int, ...], NDArray[np.float32]]], bands: int
    ) -> NDArray[np.float32]:
        return join_bands(passes, bands)

    def metadata(self, scene: Scene, bands: Sequence[int]) -> CogMetadata:
        return carried_over(scene, bands, self.scale, {})

    def blank(self, valid: NDArray[np.bool_], meta: CogMetadata) -> NDArray[np.generic]:
        fine = upsample_mask(valid, self.scale)
        return quantise(np.zeros(fine.shape, np.float64), fine, meta.dtype, meta.nodata)

    def pixels(self, tile: RanTile, radiometry: Radiometry, meta: CogMetadata) -> NDArray[np.generic]:
        core, fine, result = (slice(None), *tile.inner), tile.fine(self.scale), tile.result
        if self._fallback and tile.ood_score is not None and (tile.ood_score > 1).any():
            plain = interpolated(torch.from_numpy(tile.shown)[None], self.scale)[0].numpy()
            result = np.where(upsample_mask(tile.ood_score > 1, self.scale), plain, result)
        if self._conserve:
            source = np.where(tile.valid, tile.data, radiometry.to_source(tile.shown))
            drawn = self._conserved(source, radiometry.to_source(result), meta)[fine]
        else:
            drawn = radiometry.to_source(result[fine])
        means = tile.data[core] if self._conserve else None
        return quantise(drawn, upsample_mask(tile.valid[core], self.scale), meta.dtype, meta.nodata, means)

    def _conserved(
        self, source: NDArray[np.float64], drawn: NDArray[np.float64], meta: CogMetadata
    ) -> NDArray[np.float64]:
        """``drawn`` ``[C, H * scale, W * scale]`` with the means of ``source``, within what its type has."""
        for low, high in zip(source, drawn, strict=True):  # band by band in place, as memory is promised
            whole, parts = (torch.from_numpy(band)[None, None] for band in (low, high))
            bounds = limits(meta.dtype, meta.nodata)
            high[:] = conserve(whole, parts, self.scale, bounds)[0, 0].numpy()
        return drawn

    def legend(self) -> Mapping[str, Any]:
        return {}


def writer(model: Predictor, fallback: bool, conserve: bool) -> ImageWriter:
    """Of a model that gives an image; raises GeomoeError where it has other bands than the input."""
    [output] = model.contract.outputs.values()
    if output.channels != model.contract.bands:
        raise GeomoeError(
            f"{model.name} gives {output.channels} bands of {model.contract.bands}; expected as many, which "
            "keep the names and units of the scene's"
        )
    return ImageWriter(model.contract.scale, model.contract.bands, fallback, conserve)
