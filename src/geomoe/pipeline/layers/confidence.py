"""How sure the model is of each pixel's class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax

from geomoe.errors import GeomoeError
from geomoe.pipeline.layers.base import DoneTile
from geomoe.pipeline.runner import Predictor
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.metadata import CogMetadata, same_place

__all__ = ["Confidence", "layer"]

_MOST = 255


class Confidence:
    """The probability of the class on the map, and the entropy over all classes."""

    name = "confidence"
    routed = judged = False
    of = ()
    record: Mapping[str, Any] = {}

    def metadata(self, scene: Scene, bands: Sequence[int]) -> CogMetadata:
        return same_place(
            scene,
            dtype="uint8",
            descriptions=("confidence", "entropy"),
            scales=(1 / _MOST, 1 / _MOST),
            nodata=0,
            overviews="average",
        )

    def blank(self, bands: int, height: int, width: int) -> NDArray[np.uint8]:
        return np.zeros((2, height, width), dtype=np.uint8)

    def pixels(self, tile: DoneTile) -> NDArray[np.uint8]:
        shares = softmax(tile.answer.astype(np.float64), axis=0)  # [classes, h, w]
        both = np.stack([shares.max(0), entr(shares).sum(0) / np.log(len(shares))])
        bands: NDArray[np.uint8] = np.clip(np.rint(both * _MOST), 1, _MOST).astype(np.uint8)
        return bands

    def legend(self) -> Mapping[str, Any]:
        return {
            "bands": {
                "confidence": "probability of the class on the map, 1..255 for 0..1",
                "entropy": "over all classes, as a share of the most there can be, 1..255 for 0..1",
            },
            "nodata": 0,
        }


def layer(request: object, model: Predictor) -> Confidence:
    """The map of a model that gives the classes of pixels."""
    if not model.contract.gives("classes"):
        raise GeomoeError(f"{model.name} gives no classes of which it could be sure; leave out --confidence")
    return Confidence()
