"""What of the output is not in the scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.pipeline.layers.base import DoneTile
from geomoe.pipeline.runner import Predictor
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.metadata import CogMetadata, same_place

__all__ = ["Consistency", "layer"]


class Consistency:
    """The mean of the output over each pixel of the scene, less that pixel.

    Nil where the model has only added detail; in the units of the scene, float32, NaN where a band is not
    valid. The mean is over the numbers in the file, so rounding to integers shows.
    """

    name = "consistency"
    routed = judged = False
    of = ()
    record: Mapping[str, Any] = {}

    def metadata(self, scene: Scene, bands: Sequence[int]) -> CogMetadata:
        return same_place(
            scene,
            dtype="float32",
            descriptions=tuple(scene.descriptions[b - 1] or f"band {b}" for b in bands),
            scales=tuple(scene.scales[b - 1] for b in bands),
            nodata=float("nan"),
            overviews="average",
        )

    def blank(self, bands: int, height: int, width: int) -> NDArray[np.float32]:
        return np.full((bands, height, width), np.nan, dtype=np.float32)

    def pixels(self, tile: DoneTile) -> NDArray[np.float32]:
        bands, height, width = tile.source.shape
        scale = tile.pixels.shape[1] // height
        squares = tile.pixels.reshape(bands, height, scale, width, scale)
        means = squares.mean(axis=(2, 4), dtype=np.float64)  # [C, h, w]
        with np.errstate(over="ignore", invalid="ignore"):  # invalid pixels may hold anything
            residual = (means - tile.source).astype(np.float32)
        return np.where(tile.valid, residual, np.float32(np.nan))

    def legend(self) -> Mapping[str, Any]:
        return {
            "bands": "mean of the output over each pixel of the scene, less that pixel; in its units",
            "nodata": "NaN",
        }


def layer(request: object, model: Predictor) -> Consistency:
    """The map of a model that gives an image."""
    if not model.contract.gives("image"):
        raise GeomoeError(f"{model.name} gives no image to be compared with SRC; leave out --consistency")
    return Consistency()
