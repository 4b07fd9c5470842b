"""Legends: what the values of a mask mean, and how classes are drawn."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["IGNORED", "Legend", "colours_for"]

IGNORED = -1
"""In a sample's ``mask``, a pixel whose class is not known, or that is not to be looked at."""

_GOLDEN = 0.381966
"""Share of the circle between two hues: of any number of them, those that follow each other differ."""


def colours_for(number: int) -> tuple[str, ...]:
    """So many colours, as ``#rrggbb``, that differ in hue and every third time in lightness."""
    made = (colorsys.hls_to_rgb(i * _GOLDEN % 1, (0.5, 0.68, 0.34)[i % 3], 0.65) for i in range(number))
    return tuple("#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in made)


@dataclass(frozen=True)
class Legend:
    """The classes of a data set.

    Attributes:
        names: of the classes, each once.
        values: of the classes in the files' masks, each once; 1, 2, 3 ... if empty.
        colours: of the classes, as ``#rrggbb``; by hue if empty.
        ignored: value of the pixels whose class is not known; None where every value is a class.

    Raises:
        GeomoeError: not as many values or colours as names, or values or colours that are none.
    """

    names: tuple[str, ...]
    values: tuple[int, ...] = ()
    colours: tuple[str, ...] = ()
    ignored: int | None = 0

    def __post_init__(self) -> None:
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise GeomoeError(f"classes {'; '.join(self.names)}: expected two or more, each once")
        if not self.values:
            object.__setattr__(self, "values", tuple(range(1, len(self.names) + 1)))
        if not self.colours:
            object.__setattr__(self, "colours", colours_for(len(self.names)))
        taken = {*self.values} | ({self.ignored} if self.ignored is not None else set())
        if len(self.values) != len(self.names) or len(taken) != len(self.values) + (self.ignored is not None):
            raise GeomoeError(
                f"values {self.values} of {len(self.names)} classes, {self.ignored} ignored: expected one "
                "for each class, each once"
            )
        if len(self.colours) != len(self.names) or not all(map(_is_colour, self.colours)):
            raise GeomoeError(f"colours {self.colours}: expected {len(self.names)} as #rrggbb")

    @classmethod
    def of_values(
        cls, values: Sequence[int], ignored: int | None = 0, names: Sequence[str] | None = None
    ) -> Legend:
        """Of the values that were found in masks; ``names``, if given, are those of all but ``ignored``.

        Raises:
            GeomoeError: fewer than two classes, or another number of names.
        """
        classes = tuple(sorted({int(value) for value in values} - {ignored}))
        if names is not None and len(names) != len(classes):
            raise GeomoeError(f"{len(names)} names of classes for masks that hold {len(classes)}: {classes}")
        return cls(
            tuple(f"class {value}" for value in classes) if names is None else tuple(names), classes,
            ignored=ignored,
        )  # fmt: skip

    def indices(self, mask: NDArray[np.integer], what: str = "a mask") -> Tensor:
        """Places of the classes, int16, from 0; :data:`IGNORED` where the value is the one that is ignored.

        Args:
            mask: of any shape, as it is in the file.
            what: it is, for messages.

        Raises:
            GeomoeError: values that are no class.
        """
        found, inverse = np.unique(mask, return_inverse=True)
        place = {value: index for index, value in enumerate(self.values)}
        if self.ignored is not None:
            place[self.ignored] = IGNORED
        if unknown := [int(value) for value in found if int(value) not in place]:
            raise GeomoeError(
                f"{what} holds {unknown[0]}, which is no class; there are: "
                + "; ".join(f"{value} {name}" for value, name in zip(self.values, self.names, strict=True))
            )
        places = np.array([place[int(value)] for value in found], dtype=np.int16)
        return torch.from_numpy(places[inverse].reshape(mask.shape))


def _is_colour(text: str) -> bool:
    return re.fullmatch(r"#[0-9a-f]{6}", text) is not None
