"""What a map beside the image is, and what it is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geomoe.moe.plan import RoutingTrace
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.metadata import CogMetadata

__all__ = ["DoneTile", "Layer"]


@dataclass(frozen=True)
class DoneTile:
    """What is known of a tile when the model has run on it.

    Attributes:
        source: ``[C, h, w]`` float32, the core in source units; anything where not valid.
        valid: ``[C, h, w]`` bool.
        pixels: ``[B, h * scale, w * scale]``, what goes to the first file.
        answer: ``[D, h * scale, w * scale]`` float32, what the model gave.
        trace: of the model's pass over the first group of bands of the tile with its margin.
        size: height and width of the tile with its margin.
        inner: rows and columns of the core in it.
        ood_score: ``[h, w]`` float64 of the core, see :func:`geomoe.pipeline.layers.reliability.ood_score`;
            None where no map is ``judged``.
        beside: ``[E, H, W]`` float32 of the tile with its margin, what maps are made ``of``, by name.
        corner: row and column in the scene at which the tile with its margin begins.
    """

    source: NDArray[np.float32]
    valid: NDArray[np.bool_]
    pixels: NDArray[np.generic]
    answer: NDArray[np.float32]
    trace: RoutingTrace
    size: tuple[int, int]
    inner: tuple[slice, slice]
    ood_score: NDArray[np.float64] | None
    beside: Mapping[str, NDArray[np.float32]]
    corner: tuple[int, int]


class Layer(Protocol):
    """One map."""

    @property
    def name(self) -> str:
        """Of the map, as on the command line."""

    @property
    def routed(self) -> bool:
        """Whether it is made from a trace of the model's passes."""

    @property
    def judged(self) -> bool:
        """Whether it wants to know where routing is unlike that of training."""

    @property
    def of(self) -> tuple[str, ...]:
        """What it is made of that the model gives beside its output; see `ModelContract.beside`."""

    @property
    def record(self) -> Mapping[str, Any]:
        """Of the job's record, what this map depends on and the image may not."""

    def metadata(self, scene: Scene, bands: Sequence[int]) -> CogMetadata:
        """Everything but pixels and tags."""

    def blank(self, bands: int, height: int, width: int) -> NDArray[Any]:
        """The map of a tile that has no valid pixel, ``[B, h, w]``."""

    def pixels(self, tile: DoneTile) -> NDArray[Any]:
        """The map of a tile, ``[B, h, w]``; pixels that are valid in no band may hold anything.

        Raises:
            GeomoeError: where it turns out with the first tile that this model has no such map.
        """

    def legend(self) -> Mapping[str, Any]:
        """What its bands say, as JSON values; asked for when there are `pixels` of a tile at least."""
