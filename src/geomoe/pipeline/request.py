"""What is asked for: a scene, where the results go, and how they are made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from geomoe.errors import GeomoeError
from geomoe.pipeline.layers import LAYERS
from geomoe.raster.formats.dates import open_dates
from geomoe.raster.read.scene import Scene

if TYPE_CHECKING:
    from geomoe.models.precision import AskedPrecision
    from geomoe.pipeline.runner import Predictor

__all__ = ["AUTO", "Path", "Request"]

Path = str | os.PathLike[str]
AUTO = "auto"
"""In place of a model's name: the weights that ship and fit the scene."""


@dataclass(frozen=True)
class Request:
    """A scene to be shown to a model.

    Attributes:
        src: a local scene of integers up to 32 bits, float32 or float64: GeoTIFF, JPEG 2000, Sentinel-2
            product or STAC item; see :func:`geomoe.raster.open_scene`.
        dst: the output, ``.tif``.
        model: name of a model or weights file, as for :func:`geomoe.load`, or one that is loaded; ``auto``:
            of the weights that ship, those that fit the scene, by :func:`geomoe.pipeline.choice.choose`.
        scale: output pixels along one input pixel, of a model that makes images larger; the model's own if
            ``None``.
        fallback: draw what the reliability map marks by interpolation, which invents nothing.
        conserve: keep the scene: the mean of the output over each of its pixels is that pixel; see
            :func:`geomoe.layers.super_resolution.conserve.conserve`.
        bands: names or 1-based numbers; all bands with data if ``None``.
        nodata: of pixels without data, in place of what the scene declares; ``none``: there is no such value.
            If ``None``, what it declares, else one value over a large area at its border; see
            `geomoe.raster.look`.
        tile: side of a tile in input pixels, rounded up as the model asks; the model's own if ``None``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``...
        precision: in which the model computes: ``float32``, ``bfloat16``, or ``auto``, which is bfloat16
            where the device has it and the weights' card says what they lose in it. A job that was begun
            keeps to what ``auto`` was then, on a machine of the same kind.
        memory: bytes that the process may take at its peak; half of what is free if ``None``. On a processor
            it decides how many tiles are done at a time, one for each of torch's threads at most.
        overwrite: whether the outputs may exist.
        layers: where each map goes that is made beside the output, by its name in `LAYERS`.
        after: a scene of the same place and grid at a second date, for a model that compares two; ``src`` is
            of the first. ``bands`` and ``nodata`` are of both then.

    Raises:
        GeomoeError: a map that there is not, or no scale by which weights could be chosen.
    """

    src: Path
    dst: Path
    model: str | Predictor = AUTO
    scale: int | None = 4
    fallback: bool = False
    conserve: bool = False
    bands: str | Sequence[str | int] | None = None
    nodata: float | Literal["none"] | None = None
    tile: int | None = None
    device: str = "auto"
    precision: AskedPrecision = "auto"
    memory: int | None = None
    overwrite: bool = False
    layers: Mapping[str, Path] = field(default_factory=dict)
    after: Path | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.layers) - set(LAYERS)):
            raise GeomoeError(f"there is no map {unknown[0]!r}; expected one of {', '.join(LAYERS)}")
        if self.model == AUTO and self.scale is None:
            raise GeomoeError("which weights fit a scene depends on the scale; give one, or a model")
        # In one order, however they were asked for: it is that of the outputs.
        object.__setattr__(self, "layers", {n: self.layers[n] for n in LAYERS if n in self.layers})

    @classmethod
    def of(cls, src: Path, dst: Path, **options: Any) -> Self:
        """A request with the places of maps among the options, by their names; ``None`` for none."""
        layers = {name: path for name in LAYERS if (path := options.pop(name, None)) is not None}
        return cls(src, dst, **options, layers=layers)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The scene, or those of both dates."""
        return (self.src,) if self.after is None else (self.src, self.after)

    def open(self) -> AbstractContextManager[Scene]:
        """The scene for reading, of two dates both as one; raises GeomoeError as `open_dates`."""
        return open_dates(self.src, self.after, self.bands, self.nodata)

    @property
    def places(self) -> dict[str, Path]:
        """Where everything goes, by what it is, the image first."""
        return {"output": self.dst, **self.layers}
