"""Where a model is shown what its training did not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.models.reference import RoutingReference
from geomoe.moe.plan import LastSignals
from geomoe.pipeline.layers.base import DoneTile
from geomoe.pipeline.layers.routing import on_pixels, routed_layers, unit_of
from geomoe.pipeline.runner import Predictor
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.metadata import CogMetadata, same_place

if TYPE_CHECKING:
    from geomoe.pipeline.request import Request

__all__ = ["Reliability", "layer", "ood_score", "reference_of"]

_LEAVE_OUT = "leave out --reliability and --fallback"


class Reliability:
    """Where routing is like that of training.

    Args:
        reference: what the router saw in training.
        fallback: whether the image is interpolated where it is not, for the legend.
    """

    name = "reliability"
    routed, judged = False, True
    of = ()

    def __init__(self, reference: RoutingReference, fallback: bool) -> None:
        self._reference, self._fallback = reference, fallback
        self.record: Mapping[str, Any] = {"reliability": reference.digest()}

    def metadata(self, scene: Scene, bands: Sequence[int]) -> CogMetadata:
        return same_place(
            scene, dtype="uint8", descriptions=("reliable", "surprise"), scales=(1.0, 0.01), nodata=0
        )

    def blank(self, bands: int, height: int, width: int) -> NDArray[np.uint8]:
        return np.zeros((2, height, width), dtype=np.uint8)

    def pixels(self, tile: DoneTile) -> NDArray[np.uint8]:
        assert tile.ood_score is not None
        reliable = np.where(tile.ood_score > 1, 2, 1)
        return np.stack([reliable, np.clip(np.rint(tile.ood_score * 100), 1, 255)]).astype(np.uint8)

    def legend(self) -> Mapping[str, Any]:
        drawn = "drawn by interpolation" if self._fallback else "to be looked at with care"
        return {
            "bands": {
                "reliable": f"1: routed as in training; 2: not, and {drawn}",
                "surprise": "100 at the threshold, 1..255; 255 and above alike",
            },
            "nodata": 0,
            "threshold": f"passed by {1 - self._reference.quantile:.2%} of {self._reference.data}",
        }


def layer(request: Request, model: Predictor) -> Reliability:
    """The map of a model that routes and whose weights bring a reference."""
    return Reliability(reference_of(model), request.fallback)


def reference_of(model: Predictor) -> RoutingReference:
    """What the last router of a model saw in training.

    Raises:
        GeomoeError: if it routes nothing, or its weights bring no reference.
    """
    if not routed_layers(model.model):
        raise _routes_nothing(model.name)
    if model.reference is None:
        raise GeomoeError(
            f"{model.name} has no routing reference; learn it from its training data with "
            f"geomoe calibrate, or {_LEAVE_OUT}"
        )
    return model.reference


def ood_score(
    trace: LastSignals, reference: RoutingReference, name: str, height: int, width: int
) -> NDArray[np.float64]:
    """Out-of-distribution score of each pixel of an image, ``[height, width]``; above 1: unlike training.

    Args:
        trace: of a model's pass over the image.
        reference: of its last router.
        name: of the model, for messages.
        height: of the image.
        width: of the image.

    Raises:
        GeomoeError: if it routed neither pixels nor whole images, or the reference is of another router.
    """
    shown = trace.signals
    if shown is None:
        raise _routes_nothing(name)
    if unit_of(trace[-1], height, width) is None:
        raise GeomoeError(f"{name} routes neither pixels nor whole images; {_LEAVE_OUT}")
    if shown.shape[1] != len(reference.mean):
        raise GeomoeError(
            f"the routing reference of {name} is for {len(reference.mean)} channels, its router sees "
            f"{shown.shape[1]}; write it again with geomoe calibrate"
        )
    pixels: NDArray[np.float64] = on_pixels(trace[-1], reference.ood_score(shown).numpy(), height, width)
    return pixels


def _routes_nothing(name: str) -> GeomoeError:
    return GeomoeError(f"{name} routes nothing that could tell what training did not have; {_LEAVE_OUT}")
