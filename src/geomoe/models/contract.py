"""What a model asks of what it is given, and what it promises in return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from geomoe.errors import GeomoeError
from geomoe.layers.super_resolution.conserve import CONSERVE_REACH

__all__ = ["Input", "Kind", "ModelContract", "Output", "Tiling"]

Kind = Literal["image", "classes", "label", "values", "features"]


@dataclass(frozen=True)
class Input:
    """What a model is given under a name.

    Attributes:
        bands: channels of an image.
        names: of these, in their order, as scenes call them: ``red``, ``B8A``; empty where nobody knows.
        sensors: that measured them, by name, each with the number of its bands, in the bands' order; a pixel
            may lack all but one. Empty where the bands are of one, and all there.
    """

    bands: int
    names: tuple[str, ...] = ()
    sensors: Mapping[str, int] = field(default_factory=dict)


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
        things: those of the classes of pixels of which the model knows instances.
    """

    kind: Kind
    channels: int
    scale: int = 1
    classes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    things: tuple[str, ...] = ()

    def describe(self) -> str:
        """In words, to follow on "gives"."""
        said = {
            "image": "an image of {} bands",
            "classes": "a map of {} classes",
            "label": "a label of {} classes",
        }
        return said.get(self.kind, f"{{}} {self.kind}").format(self.channels)


@dataclass(frozen=True)
class Tiling:
    """How a scene is cut for a model that may see it in tiles, in pixels of the scene.

    Attributes:
        multiple: tiles that start on a multiple of this see the same grids as the whole scene does.
        tile: side of a tile's core, a multiple of ``multiple``.
        margin: context around the core, a multiple of ``multiple``. Where tiles are not exact, class
            probabilities of neighbours are blended over as much on both sides of the line between them.
        reach: how far away a pixel of the result sees at most, if tiles start on multiples; None if it sees
            the whole scene, or no bound is known.
    """

    multiple: int
    tile: int
    margin: int
    reach: int | None = None

    @property
    def exact(self) -> bool:
        """Whether tiles are equal to what the whole scene gives there, as margins cover the reach."""
        return self.reach is not None and self.reach <= self.margin

    def conserving(self) -> Tiling:
        """Of the same model where :func:`geomoe.layers.super_resolution.conserve.conserve` follows it."""
        least = CONSERVE_REACH + (self.reach if self.reach is not None and self.exact else 0)
        return replace(
            self,
            margin=max(self.margin, -(-least // self.multiple) * self.multiple),
            reach=None if self.reach is None else self.reach + CONSERVE_REACH,
        )


@dataclass(frozen=True)
class ModelContract:
    """Facts about a model.

    Attributes:
        inputs: by name.
        outputs: by name.
        tiling: of scenes; None of a model that sees whole samples.
        informed: whether ``model(x, known=...)`` takes what is known of each image; see
            :class:`geomoe.layers.super_resolution.known.Known`.
        beside: bands of what ``model.answers`` gives beside the outputs, on their grid, by name.
    """

    inputs: Mapping[str, Input]
    outputs: Mapping[str, Output]
    tiling: Tiling | None = None
    informed: bool = False
    beside: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_images(cls, scale: int, bands: int, tiling: Tiling, informed: bool = False) -> Self:
        """Of a model that gives an image, ``scale`` times as high and wide, of an image."""
        output = Output("image", bands, scale)
        return cls({"image": Input(bands)}, {"image": output}, tiling, informed)

    @property
    def bands(self) -> int:
        """Channels of the one input."""
        [given] = self.inputs.values()
        return given.bands

    @property
    def scale(self) -> int:
        """Side of the one output's pixel grid over that of the input."""
        [made] = self.outputs.values()
        return made.scale

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands of the one input; empty where nobody knows."""
        [given] = self.inputs.values()
        return given.names

    @property
    def sensors(self) -> Mapping[str, int]:
        """Of the one input, with the numbers of their bands; empty where it is of one."""
        [given] = self.inputs.values()
        return given.sensors

    def named(self, names: Sequence[str]) -> Self:
        """The same with names of the bands of its one input, if there is one for each."""
        if len(self.inputs) != 1 or len(names) != self.bands:
            return self
        [(name, given)] = self.inputs.items()
        return replace(self, inputs={name: replace(given, names=tuple(names))})

    def gives(self, kind: Kind) -> bool:
        """Whether an output is of this kind."""
        return any(output.kind == kind for output in self.outputs.values())

    def expect(self, kind: Kind, name: str, why: str = "") -> None:
        """Raise GeomoeError, with the model's ``name`` and ``why``, unless an output is of this kind."""
        if not self.gives(kind):
            found = ", ".join(output.describe() for output in self.outputs.values())
            wanted = {"image": "an image", "label": "a label", "classes": "classes of pixels"}.get(kind, kind)
            raise GeomoeError(f"{name} gives {found}; expected weights of a model that gives {wanted}{why}")

    def record(self) -> dict[str, Any]:
        """As items and journals say it."""
        tiling = {} if self.tiling is None else asdict(self.tiling)
        names = {"names": list(self.names)} if self.names else {}
        sensors = {"sensors": dict(self.sensors)} if self.sensors else {}
        facts = {"scale": self.scale, "bands": self.bands, **names, **sensors}
        return {**facts, **tiling, "informed": self.informed}
