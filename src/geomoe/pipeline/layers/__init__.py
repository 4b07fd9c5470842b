"""Maps beside the image, on the grid of the scene.

A map is a module of this folder with a function ``layer``, and a line of `LAYERS`, from which its option and
its column in manifests follow. Importing this is cheap: a map's module is imported when the map is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geomoe.pipeline.layers.base import Layer
    from geomoe.pipeline.request import Request
    from geomoe.pipeline.runner import Predictor

__all__ = ["LAYERS", "make_layers"]

LAYERS = {
    "experts": "which expert drew each pixel",
    "confidence": "how sure the model is of each class",
    "probabilities": "how probable each class is, a band for each",
    "instances": "to which one of its class each pixel belongs",
    "consistency": "the output downsampled again, less the scene",
    "reliability": "where the model was shown what training did not have",
}
"""Of each map, by the name of its module, what it shows."""


def make_layers(request: Request, model: Predictor) -> tuple[Layer, ...]:
    """The maps that are asked for, in the order of the request.

    Raises:
        GeomoeError: where the model has no such map.
    """
    return tuple(import_module(f"{__name__}.{name}").layer(request, model) for name in request.layers)
