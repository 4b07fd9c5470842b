"""How probable the model holds each class of each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from geomoe.pipeline.layers.base import DoneTile
from geomoe.pipeline.runner import Predictor
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.metadata import CogMetadata, same_place

__all__ = ["Probabilities", "layer"]

_MOST = 255


class Probabilities:
    """A band for each class, which has its name; the largest of a pixel is the confidence.

    Args:
        names: of the classes.
    """

    name = "probabilities"
    routed = judged = False
    of = ()
    record: Mapping[str, Any] = {}

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def metadata(self, scene: Scene, bands: Sequence[int]) -> CogMetadata:
        scales = (1 / _MOST,) * len(self._names)
        return same_place(
            scene, dtype="uint8", descriptions=self._names, scales=scales, nodata=0, overviews="average"
        )

    def blank(self, bands: int, height: int, width: int) -> NDArray[np.uint8]:
        return np.zeros((len(self._names), height, width), dtype=np.uint8)

    def pixels(self, tile: DoneTile) -> NDArray[np.uint8]:
        shares = softmax(tile.answer.astype(np.float64), axis=0)  # [classes, h, w]
        bands: NDArray[np.uint8] = np.clip(np.rint(shares * _MOST), 1, _MOST).astype(np.uint8)
        return bands

    def legend(self) -> Mapping[str, Any]:
        return {"bands": "probability of each class, 1..255 for 0..1", "nodata": 0}


def layer(request: object, model: Predictor) -> Probabilities:
    """The map of a model that gives the classes of pixels."""
    model.contract.expect("classes", model.name, ", for --probabilities")
    [output] = model.contract.outputs.values()
    return Probabilities(output.classes)
