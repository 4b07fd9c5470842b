"""What a writer is, and what it is given of a tile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geomoe.raster.read.classes import ClassValue
from geomoe.raster.read.radiometry import Radiometry
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.metadata import CogMetadata

__all__ = ["RanTile", "Writer"]


@dataclass(frozen=True)
class RanTile:
    """A tile with its margin, when the model has run on it.

    Attributes:
        data: ``[C, H, W]`` float32 in source units; anything where not valid.
        shown: ``[C, H, W]`` float32, what the model was shown.
        valid: ``[C, H, W]`` bool.
        inner: rows and columns of the core.
        result: ``[D, H * scale, W * scale]`` float32, what the model gave; finite.
        ood_score: ``[H, W]`` float64, see :func:`geomoe.pipeline.layers.reliability.ood_score`; None where
            nobody asked.
        beside: ``[E, H, W]`` float32, what maps are made of that the model gave beside it, by name.
    """

    data: NDArray[np.float32]
    shown: NDArray[np.float32]
    valid: NDArray[np.bool_]
    inner: tuple[slice, slice]
    result: NDArray[np.float32]
    ood_score: NDArray[np.float64] | None
    beside: Mapping[str, NDArray[np.float32]]

    def fine(self, scale: int) -> tuple[slice, ...]:
        """The core in ``result``."""
        return (slice(None), *(slice(s.start * scale, s.stop * scale) for s in self.inner))


class Writer(Protocol):
    """Makes the first file of a job of what a model gives.

    Attributes:
        name: of the kind of output, in the file's tags.
        scale: its pixels along one of the scene.
        title: what the file is, to follow on the name of the scene.
        does: what the model does, to follow on its name.
        noun: the same, in two or three words.
        caveat: a sentence on what may be believed of it.
        takes: what the model asks of its bands, a sentence; empty where any do, in groups.
        gives: what the model gives, a sentence.
        mlm_task: of the STAC extension for models.
        classes: of which it gives logits, in their order; empty of others.
        blends: whether several tiles' logits of a pixel can be made one, by the mean of their probabilities.
    """

    name: str
    scale: int
    title: str
    does: str
    noun: str
    caveat: str
    takes: str
    gives: str
    mlm_task: str
    classes: tuple[ClassValue, ...]
    blends: bool

    def bands(self, scene: Scene, spec: str | Sequence[str | int] | None) -> tuple[int, ...]:
        """The bands to work on, 1-based, as `select_bands`; raises GeomoeError for those that do not do."""

    def note(self, scene: Scene, bands: Sequence[int]) -> str | None:
        """What is taken for granted about these bands, in words."""

    def channels(self, bands: int) -> int:
        """Of what the model gives for so many bands, D."""

    def there(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which pixels get a result, ``[h, w]``, by the validity ``[C, h, w]`` of their bands."""

    def told(self, valid: NDArray[np.bool_]) -> Mapping[str, NDArray[np.bool_]]:
        """What the model is told of the validity ``[C, H, W]`` of bands, by the names of its arguments."""

    def lacking(self, scene: Scene, filled: Sequence[bool]) -> tuple[str, ...]:
        """Sensors that the scene lacks, by which of the bands have a valid pixel at all.

        Raises:
            EmptyError: the model needs a band that has none.
        """

    def join(
        self, passes: Iterable[tuple[tuple[int, ...], NDArray[np.float32]]], bands: int
    ) -> NDArray[np.float32]:
        """``[D, H, W]``, of passes over groups of bands: which these are, from 0, and what each gave."""

    def metadata(self, scene: Scene, bands: Sequence[int]) -> CogMetadata:
        """Everything but pixels and tags."""

    def blank(self, valid: NDArray[np.bool_], meta: CogMetadata) -> NDArray[np.generic]:
        """The pixels of a tile in which nothing is `there`."""

    def pixels(self, tile: RanTile, radiometry: Radiometry, meta: CogMetadata) -> NDArray[np.generic]:
        """The pixels of a tile's core, ``[B, h * scale, w * scale]``."""

    def legend(self) -> Mapping[str, Any]:
        """What its values say, as JSON values; empty where they are the scene's."""
