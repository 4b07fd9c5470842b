"""A map of what each pixel of the scene shows: the number of its class, with names and colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomoe.data.legend import colours_for
from geomoe.errors import GeomoeError
from geomoe.layers.sensors import sensor_slices
from geomoe.models.contract import Input, Output
from geomoe.pipeline.runner import Predictor
from geomoe.pipeline.writers.base import RanTile
from geomoe.raster.formats.dates import DATES
from geomoe.raster.read.bands import exact_bands, exact_order
from geomoe.raster.read.classes import ClassValue
from geomoe.raster.read.radiometry import Radiometry
from geomoe.raster.read.sample import EmptyError
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.metadata import CogMetadata, same_place

__all__ = ["ClassWriter", "writer"]

_MOST = 255


class ClassWriter:
    """The most probable class of each pixel, from 1 in uint8; 0 where nothing is valid that the model needs.

    Of one sensor that is every band, of several the bands of one of them, of two dates those of both.

    Args:
        output: of the model.
        given: to the model.
    """

    name = "classes"
    scale = 1
    title = "classes of pixels"
    does = "classes of pixels"
    noun = "class map"
    caveat = "The class of a pixel is the one that the model takes for the most probable."
    gives = "Logits of the classes of each pixel."
    mlm_task = "semantic-segmentation"
    blends = True

    def __init__(self, output: Output, given: Input) -> None:
        self._given, self._compares = given, tuple(given.sensors) == DATES
        self.takes = f"{given.bands} bands, all at once, in the order in which the model learned them."
        colours = output.colours or colours_for(len(output.classes))
        named = zip(output.classes, colours, strict=True)
        self.classes = tuple(ClassValue(i, name, colour) for i, (name, colour) in enumerate(named, 1))

    def bands(self, scene: Scene, spec: str | Sequence[str | int] | None) -> tuple[int, ...]:
        given = self._given
        if len(scene.parts) == 1:
            try:
                return exact_bands(scene, given.bands, spec, given.names)
            except GeomoeError as error:
                if self._compares:
                    raise GeomoeError(f"{error}; the second date is given by --after") from error
                raise
        if not self._compares:
            called = f", its sensors are {' and '.join(given.sensors)}" if given.sensors else ""
            raise GeomoeError(
                f"the model compares no two dates, which are called {' and '.join(DATES)}{called}; leave out "
                "--after"
            )
        first, chosen = 0, []
        for part, bands in zip(scene.parts, sensor_slices(given.sensors).values(), strict=True):
            found = exact_bands(part, bands.stop - bands.start, spec, given.names[bands])
            chosen += [first + band for band in found]
            first += part.count
        return tuple(chosen)

    def note(self, scene: Scene, bands: Sequence[int]) -> str | None:
        return exact_order(scene, bands, self._given.names)

    def channels(self, bands: int) -> int:
        return len(self.classes)

    def there(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        present = self._present(valid)  # what one date lacks nobody can compare
        found: NDArray[np.bool_] = np.all(present, axis=0) if self._compares else np.any(present, axis=0)
        return found

    def _present(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``[S, H, W]``, where all bands of each sensor are valid; of one sensor ``[1, H, W]``."""
        slices = sensor_slices(self._given.sensors).values() or (slice(None),)
        return np.stack([np.all(valid[bands], axis=0) for bands in slices])

    def told(self, valid: NDArray[np.bool_]) -> Mapping[str, NDArray[np.bool_]]:
        return {"present": self._present(valid)} if self._given.sensors else {"valid": self.there(valid)}

    def lacking(self, scene: Scene, filled: Sequence[bool]) -> tuple[str, ...]:
        slices = sensor_slices(self._given.sensors)
        lacking = tuple(name for name, bands in slices.items() if not all(filled[bands]))
        if lacking == tuple(slices) and not all(filled):
            raise EmptyError(
                f"{scene.path.name} has a band without a valid pixel, and the model needs "
                + ("all bands of a sensor" if slices else "them all")
            )
        return lacking

    def join(
        self, passes: Iterable[tuple[tuple[int, ...], NDArray[np.float32]]], bands: int
    ) -> NDArray[np.float32]:
        [(_, logits)] = passes
        return logits

    def metadata(self, scene: Scene, bands: Sequence[int]) -> CogMetadata:
        return same_place(
            scene, dtype="uint8", descriptions=("class",), scales=(1.0,), nodata=0, classes=self.classes
        )

    def blank(self, valid: NDArray[np.bool_], meta: CogMetadata) -> NDArray[np.uint8]:
        return np.zeros((1, *valid.shape[1:]), np.uint8)

    def pixels(self, tile: RanTile, radiometry: Radiometry, meta: CogMetadata) -> NDArray[np.uint8]:
        best = tile.result[tile.fine(1)].argmax(0)  # [h, w]; of equal ones the first
        there = self.there(tile.valid[(slice(None), *tile.inner)])
        return np.where(there, best + 1, 0).astype(np.uint8)[None]

    def legend(self) -> Mapping[str, Any]:
        return {"classes": {str(each.value): each.name for each in self.classes}, "nodata": 0}


def writer(model: Predictor, fallback: bool, conserve: bool) -> ClassWriter:
    """Of a model that gives the classes of pixels; raises GeomoeError for options that it has not."""
    [given], [output] = model.contract.inputs.values(), model.contract.outputs.values()
    for option, asked in (("--fallback", fallback), ("--conserve", conserve)):
        if asked:
            raise GeomoeError(f"{model.name} gives {output.describe()}, no image; leave out {option}")
    if output.channels > _MOST:
        raise GeomoeError(f"{model.name} gives {output.describe()}; a map in bytes holds {_MOST} of them")
    return ClassWriter(output, given)
