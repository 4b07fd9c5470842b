"""To which thing each pixel belongs: the map of a model that knows instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.layers.panoptic import REACH, find_centres, group_pixels
from geomoe.models.contract import Output
from geomoe.pipeline.layers.base import DoneTile
from geomoe.pipeline.runner import Predictor, tiling_of
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.metadata import CogMetadata, same_place

__all__ = ["Instances", "layer"]

_MOST = 2**32


class Instances:
    """The number of each pixel's instance; 0 where there is none.

    An instance is known by its centre, so that tiles agree on its number without a word between them: rows of
    the scene above it, times pixels of a row, and columns before it, from 1.

    Args:
        output: of the model, of which some classes are things.
    """

    name = "instances"
    routed = judged = False
    of = ("centres", "offsets")
    record: Mapping[str, Any] = {}

    def __init__(self, output: Output) -> None:
        self._things = [output.classes.index(name) + 1 for name in output.things]
        self._names = output.things
        self._width = 0  # of the scene, once `metadata` has seen it

    def metadata(self, scene: Scene, bands: Sequence[int]) -> CogMetadata:
        if scene.width * scene.height >= _MOST:
            raise GeomoeError(
                f"{scene.path.name} has {scene.width} x {scene.height} pixels, more than instances can be "
                "numbered in; leave out --instances"
            )
        self._width = scene.width
        return same_place(scene, dtype="uint32", descriptions=("instance",), scales=(1.0,), nodata=0)

    def blank(self, bands: int, height: int, width: int) -> NDArray[np.uint32]:
        return np.zeros((1, height, width), dtype=np.uint32)

    def pixels(self, tile: DoneTile) -> NDArray[np.uint32]:
        near = tuple(
            slice(max(core.start - REACH, 0), min(core.stop + REACH, size))
            for core, size in zip(tile.inner, tile.size, strict=True)
        )
        core = tuple(
            slice(part.start - around.start, part.stop - around.start)
            for part, around in zip(tile.inner, near, strict=True)
        )
        heat = torch.from_numpy(tile.beside["centres"][0][near])
        points = torch.from_numpy(tile.beside["offsets"][(slice(None), *near)])
        where = torch.zeros_like(heat, dtype=torch.bool)
        where[core] = torch.from_numpy(np.isin(tile.pixels[0], self._things))
        centres = find_centres(heat)
        found = group_pixels(points, centres, where)[core].numpy()
        corner = np.array(tile.corner) + [around.start for around in near]
        rows, columns = (centres.numpy().astype(np.int64) + corner).T
        numbers = np.concatenate([[0], rows * self._width + columns + 1])
        made: NDArray[np.uint32] = numbers[found].astype(np.uint32)[None]
        return made

    def legend(self) -> Mapping[str, Any]:
        return {
            "bands": {"instance": "number of its centre: rows above it x width + columns before it + 1"},
            "things": list(self._names),
            "nodata": 0,
        }


def layer(request: object, model: Predictor) -> Instances:
    """The map of a model that knows instances."""
    [output] = model.contract.outputs.values()
    if not output.things or not set(Instances.of) <= set(model.contract.beside):
        raise GeomoeError(f"{model.name} knows no instances; leave out --instances")
    tiling = tiling_of(model)
    if tiling.reach is None or tiling.reach + REACH > tiling.margin:
        raise GeomoeError(
            f"{model.name} sees {tiling.reach} pixels far, too far for instances within a margin of "
            f"{tiling.margin}; leave out --instances"
        )
    return Instances(output)
