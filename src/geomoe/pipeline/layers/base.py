"""What is made beside the image: maps on the grid of the scene."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline.layers.experts import expert_layers, expert_metadata
from geomoe.pipeline.layers.reliability import Judge
from geomoe.pipeline.runner import Upscaler
from geomoe.raster.metadata import CogMetadata, same_place
from geomoe.raster.scene import Scene

__all__ = [
    "Consistency",
    "DoneTile",
    "Experts",
    "Layer",
    "Reliability",
    "of_layer",
    "reference_tag",
]


@dataclass(frozen=True)
class DoneTile:
    """What is known of a tile when the model has run on it.

    Attributes:
        source: ``[C, h, w]`` float32, the core in source units; anything where not valid.
        valid: ``[C, h, w]`` bool.
        pixels: ``[C, h * scale, w * scale]``, what goes to the image.
        traces: of each pass of the model over the tile with its margin; empty where nobody asked.
        name: of the model.
        size: height and width of the tile with its margin.
        inner: rows and columns of the core in it.
        surprise: ``[h, w]`` float64 of the core, as :class:`Judge` gives it; None where nobody asked.
    """

    source: NDArray[np.float32]
    valid: NDArray[np.bool_]
    pixels: NDArray[np.generic]
    traces: Sequence[RoutingTrace]
    name: str
    size: tuple[int, int]
    inner: tuple[slice, slice]
    surprise: NDArray[np.float64] | None


class Layer(Protocol):
    """One map."""

    @property
    def name(self) -> str:
        """Of the map, as on the command line."""

    @property
    def routed(self) -> bool:
        """Whether it is made from a trace of the model's passes."""

    def metadata(
        self, scene: Scene, bands: Sequence[int], upscaler: Upscaler, tags: Mapping[str, str]
    ) -> CogMetadata:
        """Everything but the pixels; raises GeomoeError where this model has no such map."""

    def blank(self, bands: int, height: int, width: int) -> NDArray[Any]:
        """The map of a tile that has no valid pixel, ``[B, h, w]``."""

    def pixels(self, tile: DoneTile) -> NDArray[Any]:
        """The map of a tile, ``[B, h, w]``; pixels that are valid in no band may hold anything."""


@dataclass(frozen=True)
class Experts:
    """Which expert drew each pixel; see :func:`expert_layers`."""

    name = "experts"
    routed = True

    def metadata(
        self, scene: Scene, bands: Sequence[int], upscaler: Upscaler, tags: Mapping[str, str]
    ) -> CogMetadata:
        return expert_metadata(scene, upscaler, tags)

    def blank(self, bands: int, height: int, width: int) -> NDArray[np.uint8]:
        return np.zeros((4, height, width), dtype=np.uint8)

    def pixels(self, tile: DoneTile) -> NDArray[np.uint8]:
        return expert_layers(tile.traces[0], tile.name, *tile.size)[:, *tile.inner]


@dataclass(frozen=True)
class Consistency:
    """What of the output is not in the scene: the mean over each pixel of the scene, less that pixel.

    Nil where the model has only added detail; in the units of the scene, float32, NaN where a band is not
    valid. The mean is over the numbers in the file, so rounding to integers shows.
    """

    name = "consistency"
    routed = False

    def metadata(
        self, scene: Scene, bands: Sequence[int], upscaler: Upscaler, tags: Mapping[str, str]
    ) -> CogMetadata:
        names = tuple(scene.descriptions[b - 1] or f"band {b}" for b in bands)
        legend = {
            "bands": "mean of the output over each pixel of the scene, less that pixel; in its units",
            "nodata": "NaN",
        }
        return same_place(
            scene,
            dtype="float32",
            descriptions=names,
            scales=tuple(scene.scales[b - 1] for b in bands),
            nodata=float("nan"),
            tags={**tags, "GEOMOE_LEGEND": json.dumps(legend, sort_keys=True)},
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


@dataclass(frozen=True)
class Reliability:
    """Where routing is like that of training.

    Attributes:
        fallback: whether the image has bicubic upsampling where it is not, for the legend.
    """

    fallback: bool
    name = "reliability"
    routed = False

    def metadata(
        self, scene: Scene, bands: Sequence[int], upscaler: Upscaler, tags: Mapping[str, str]
    ) -> CogMetadata:
        reference = Judge(upscaler).reference
        drawn = "drawn by bicubic upsampling" if self.fallback else "to be looked at with care"
        legend = {
            "bands": {
                "reliable": f"1: routed as in training; 2: not, and {drawn}",
                "surprise": "100 at the threshold, 1..255; 255 and above alike",
            },
            "nodata": 0,
            "threshold": f"passed by {1 - reference.quantile:.2%} of {reference.data}",
        }
        return same_place(
            scene,
            dtype="uint8",
            descriptions=("reliable", "surprise"),
            scales=(1.0, 0.01),
            nodata=0,
            tags={**tags, "GEOMOE_LEGEND": json.dumps(legend, sort_keys=True)},
        )

    def blank(self, bands: int, height: int, width: int) -> NDArray[np.uint8]:
        return np.zeros((2, height, width), dtype=np.uint8)

    def pixels(self, tile: DoneTile) -> NDArray[np.uint8]:
        assert tile.surprise is not None
        reliable = np.where(tile.surprise > 1, 2, 1)
        return np.stack([reliable, np.clip(np.rint(tile.surprise * 100), 1, 255)]).astype(np.uint8)


def of_layer(name: str, upscaler: Upscaler) -> dict[str, str]:
    """Tags of one output that the others of its job do not have, or have otherwise."""
    reference = {"GEOMOE_REFERENCE": reference_tag(upscaler)} if name == Reliability.name else {}
    return {"GEOMOE_LAYER": name, **reference}


def reference_tag(upscaler: Upscaler) -> str:
    """The digest of the routing reference, as JSON."""
    return json.dumps(upscaler.reference.digest() if upscaler.reference else None)
