"""What is asked for: a scene, where the result goes, and how it is made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from geomoe.models import ModelContract, load
from geomoe.models.precision import AskedPrecision
from geomoe.pipeline.choice import AUTO, fitting
from geomoe.pipeline.layers.base import Consistency, Experts, Layer, Reliability
from geomoe.pipeline.runner import Upscaler, check_scale
from geomoe.raster.known import KnownScene

__all__ = ["Options", "Path", "Request"]

Path = str | os.PathLike[str]


class Options(TypedDict, total=False):
    """The attributes of `Request` beside the scene and the target; what is left out has its default."""

    model: str | Upscaler
    scale: int
    experts: Path | None
    consistency: Path | None
    reliability: Path | None
    fallback: bool
    conserve: bool
    bands: str | Sequence[str | int] | None
    nodata: float | Literal["none"] | None
    tile: int | None
    device: str
    precision: AskedPrecision
    memory: int | None
    overwrite: bool


@dataclass(frozen=True)
class Request:
    """A scene to be super-resolved.

    Attributes:
        src: a local scene of integers up to 32 bits, float32 or float64: GeoTIFF, JPEG 2000, Sentinel-2
            product or STAC item; see :func:`geomoe.raster.open_scene`.
        dst: the output, ``.tif``.
        model: name of a model or weights file, as for :func:`geomoe.load`, or one that is loaded; ``auto``:
            of the weights that ship, those that fit the scene, by :func:`geomoe.pipeline.choice.choose`.
        scale: output pixels along one input pixel.
        experts: if given, the map of experts goes here, on the grid of ``src``.
        consistency: if given, what is left when the output is made small again and ``src`` is taken off.
        reliability: if given, the map of where routing is like that of training.
        fallback: draw what the reliability map marks by bicubic upsampling, which invents nothing.
        conserve: keep the scene: the mean of the output over each of its pixels is that pixel; see
            :func:`geomoe.layers.conserve.conserve`.
        bands: names or 1-based numbers; all bands with data if ``None``.
        nodata: of pixels without data, in place of what the scene declares; ``none``: there is no such value.
            If ``None``, what it declares, else one value over a large area at its border; see
            `geomoe.raster.look`.
        tile: side of a tile in input pixels, rounded up as the model asks; the model's own if ``None``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``...
        precision: in which the model computes: ``float32``, ``bfloat16``, or ``auto``, which is bfloat16
            where the device has it and the weights' card says what they lose in it. A job that was begun
            keeps to what ``auto`` was then, on a machine that computes alike.
        memory: bytes that the process may take at its peak; half of what is free if ``None``. On a processor
            it decides how many tiles are done at a time, one for each of torch's threads at most.
        overwrite: whether the outputs may exist.
    """

    src: Path
    dst: Path
    model: str | Upscaler = AUTO
    scale: int = 4
    experts: Path | None = None
    consistency: Path | None = None
    reliability: Path | None = None
    fallback: bool = False
    conserve: bool = False
    bands: str | Sequence[str | int] | None = None
    nodata: float | Literal["none"] | None = None
    tile: int | None = None
    device: str = "auto"
    precision: AskedPrecision = "auto"
    memory: int | None = None
    overwrite: bool = False

    def loaded(self, known: KnownScene) -> tuple[Upscaler, str]:
        """The model for a scene of which this is known, and why it is that one; empty where its user said so.

        Raises:
            GeomoeError: where there is none, or one for another scale.
        """
        if self.model == AUTO:
            return fitting(known, self.scale)
        model = load(self.model, self.scale) if isinstance(self.model, str) else self.model
        check_scale(model, self.scale)
        return model, ""

    def contract(self, model: Upscaler) -> ModelContract:
        """By which tiles are cut for a model."""
        return model.contract.conserving() if self.conserve else model.contract

    @property
    def judged(self) -> bool:
        """Whether it is asked how the model routes."""
        return self.fallback or self.reliability is not None

    @property
    def layers(self) -> dict[Layer, Path]:
        """What is made beside the image, and where each goes."""
        asked: list[tuple[Layer, Path | None]] = [
            (Experts(), self.experts),
            (Consistency(), self.consistency),
            (Reliability(self.fallback), self.reliability),
        ]
        return {layer: path for layer, path in asked if path is not None}
