"""Splits of items, such as files: what is trained on, and what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from geomoe.errors import GeomoeError, expect

__all__ = [
    "PARTS",
    "Part",
    "Shares",
    "Split",
    "ends_of",
    "every",
    "every_of_each",
    "hold_out",
    "items_by_folder",
    "parts_by_name",
]

Part = Literal["fit", "validation", "test"]
Split = Literal["train", "validation", "fit", "test"]
"""A part; ``train`` is ``fit`` and ``validation``."""
PARTS: tuple[Part, ...] = ("fit", "validation", "test")

T = TypeVar("T")


@dataclass(frozen=True)
class Shares:
    """How much is held out, as shares of all, 0 to below 1; the rest is trained on.

    Raises:
        GeomoeError: shares that are none, or leave nothing to train on.
    """

    validation: float = 0.1
    test: float = 0.3

    def __post_init__(self) -> None:
        for name, value in (("validation", self.validation), ("test", self.test)):
            expect(0 < value < 1, name, value, "a share between 0 and 1")
        expect(
            self.validation + self.test < 1, "validation + test", self.validation + self.test, "less than 1"
        )

    @property
    def of_parts(self) -> tuple[float, float, float]:
        """In the order of :data:`PARTS`."""
        return 1 - self.validation - self.test, self.validation, self.test


def hold_out(found: Sequence[T], share: float, what: str) -> tuple[list[T], list[T]]:
    """As :func:`every`, at least one; raises GeomoeError, which begins with ``what``, for fewer than two."""
    if len(found) == 1:
        raise GeomoeError(f"{what}; training needs at least two, one to validate on")
    return every(found, max(share, 1e-6))


def every(items: Sequence[T], share: float) -> tuple[list[T], list[T]]:
    """The rest, and every k-th, for ``share`` of them; at least one where any is wanted and two are there."""
    if not share or len(items) < 2:
        return list(items), []
    step = max(2, round(1 / share))
    kept = set(range(step - 1, len(items), step)) or {len(items) - 1}
    return [p for i, p in enumerate(items) if i not in kept], [items[i] for i in sorted(kept)]


def every_of_each(paths: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """As :func:`every`, of the files of each folder: where folders are classes, each keeps its share."""
    rest: list[Path] = []
    kept: list[Path] = []
    for folder in sorted({path.parent for path in paths}):
        more, held = every([path for path in paths if path.parent == folder], share)
        rest, kept = rest + more, kept + held
    return rest, kept


def parts_by_name(paths: Sequence[Path], part: Split, share: float) -> list[Path]:
    """Those of a part, of files that are named ``train_...`` and ``test_...``.

    ``validation`` is every k-th of each folder of ``train``, for ``share`` of them.
    """
    train = [path for path in paths if path.name.startswith("train_")]
    if part == "test":
        return [path for path in paths if path.name.startswith("test_")]
    fit, validation = every_of_each(train, share)
    return {"train": train, "fit": fit, "validation": validation}[part]


def items_by_folder(
    folders: Sequence[str], shares: Shares, seed: int, left_out: Sequence[str] = ()
) -> list[Part]:
    """The part of each of several items, such as images, as a whole; of each folder by chance.

    Args:
        folders: in which each item lies.
        shares: of the items of each folder that are held out.
        seed: of the draw.
        left_out: folders that are tested on, whole, in place of a share of each: what is scored then tells
            of places, seasons or sensors that were not seen.

    Raises:
        GeomoeError: no folder of this name, no other one, or too few items to hold any out.
    """
    names = sorted(set(folders))
    if unknown := [name for name in left_out if name not in names]:
        raise GeomoeError(f"no folder {unknown[0]!r} can be left out; there are: {', '.join(names)}")
    if len(names) == len(set(left_out)):
        raise GeomoeError(f"all folders are left out, and none is trained on: {', '.join(names)}")
    parts: list[Part] = ["test" if folder in left_out else "fit" for folder in folders]
    rng = np.random.default_rng(seed)
    for name in names:
        if name in left_out:
            continue
        items = rng.permutation([i for i, folder in enumerate(folders) if folder == name])
        if not left_out:
            fit, rest = ends_of(len(items), shares)
        else:
            fit, rest = (
                len(items) - max(round(shares.validation * len(items)), int(len(items) > 1)),
                len(items),
            )
        for place, item in enumerate(items):
            parts[int(item)] = "fit" if place < fit else "validation" if place < rest else "test"
    if missing := [part for part in PARTS if part not in parts]:
        raise GeomoeError(f"{len(folders)} images are too few to hold any out for {missing[0]}")
    return parts


def ends_of(number: int, shares: Shares) -> tuple[int, int]:
    """How many of ``number`` things are trained on, and how many of them are not tested on."""
    if not number:
        return 0, 0
    least = int(number >= 3)  # then there is one for each
    test = min(max(round(shares.test * number), least), number - 1 - least)
    validation = min(max(round(shares.validation * number), least), number - 1 - test)
    return number - test - validation, number - test
