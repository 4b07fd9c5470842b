"""What a model asks of what it is given, and what it promises in return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from geomoe.layers.conserve import CONSERVE_REACH

__all__ = ["Input", "ModelContract", "Output", "SampleContract", "Tiling"]


@dataclass(frozen=True)
class Input:
    """What a model is given under a name.

    Attributes:
        bands: channels of an image.
    """

    bands: int


@dataclass(frozen=True)
class Output:
    """What a model gives under a name.

    Attributes:
        kind: an ``image``; the ``classes`` of pixels, as logits ``[B, channels, H, W]``; of the whole sample
            a ``label``, as logits, ``values`` or ``features``, all ``[B, channels]``.
        channels: of an image; classes; numbers.
        scale: side of an image's pixel grid over that of the input.
        classes: names of the classes.
        colours: of the classes of pixels, as ``#rrggbb``; may be empty.
    """

    kind: Literal["image", "classes", "label", "values", "features"]
    channels: int
    scale: int = 1
    classes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()

    def describe(self) -> str:
        """In words."""
        if self.kind == "classes":
            return f"map of {self.channels} classes"
        of = {"image": "bands", "label": "classes"}.get(self.kind, "numbers")
        return f"{self.kind} of {self.channels} {of}"


@dataclass(frozen=True)
class Tiling:
    """How a scene is cut for a model that may see it in tiles, in pixels of the scene.

    Attributes:
        tile: side of a tile's core, a multiple of ``multiple``.
        multiple: tiles that start on a multiple of this see the same grids as the whole scene does.
        margin: context around the core, a multiple of ``multiple``.
        reach: how far a pixel of the result sees at most, if tiles start on multiples; None if no bound is
            known. Where it is at most the margin, tiles are equal to what the whole scene gives there.
    """

    tile: int
    multiple: int
    margin: int
    reach: int | None = None


@dataclass(frozen=True)
class SampleContract:
    """Facts about a model of other things than images of images.

    Attributes:
        inputs: by name.
        outputs: by name.
        tiling: of scenes; None of a model that sees whole samples.
    """

    inputs: Mapping[str, Input]
    outputs: Mapping[str, Output]
    tiling: Tiling | None = None


@dataclass(frozen=True)
class ModelContract:
    """Facts about a model that gives an image of an image, and what tiling needs to know of it.

    Attributes:
        scale: side of the output pixel grid over that of the input.
        bands: channels in and out.
        multiple: tiles that start on a multiple of this many input pixels see the
            same window grid as the whole scene does.
        tile: side of a tile's core in input pixels, a multiple of ``multiple``.
        margin: input pixels of context around the core, a multiple of ``multiple``.
        reach: how many input pixels away an output pixel sees at most, if tiles start on multiples; None
            if it sees the whole image, or no bound is known. Where it is at most the margin, tiles are equal
            to the untiled image.
        informed: whether ``model(x, known=...)`` takes what is known of each image; see
            :class:`geomoe.layers.known.Known`.
    """

    scale: int
    bands: int
    multiple: int
    tile: int
    margin: int
    reach: int | None = None
    informed: bool = False

    @property
    def inputs(self) -> Mapping[str, Input]:
        """As of :class:`SampleContract`."""
        return {"image": Input(self.bands)}

    @property
    def outputs(self) -> Mapping[str, Output]:
        """As of :class:`SampleContract`."""
        return {"image": Output("image", self.bands, self.scale)}

    def conserving(self) -> ModelContract:
        """The contract of the same model where :func:`geomoe.layers.conserve.conserve` follows it."""
        equal = self.reach is not None and self.reach <= self.margin
        least = CONSERVE_REACH + (self.reach if self.reach is not None and equal else 0)
        return replace(
            self,
            margin=max(self.margin, -(-least // self.multiple) * self.multiple),
            reach=None if self.reach is None else self.reach + CONSERVE_REACH,
        )
