"""Splits of images and of their pixels: what is trained on, validated on and tested on.

Any data set whose samples are images with masks takes any of them. What is drawn depends on the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from geomoe.data.layouts import Part
from geomoe.errors import GeomoeError, expect

__all__ = [
    "NOBODY", "PARTS", "Places", "Shares",
    "items_by_folder", "random_pixels", "spatial_blocks", "whole_image",
]  # fmt: skip

PARTS: tuple[Part, ...] = ("fit", "validation", "test")
NOBODY = -1
"""In a map of parts, a pixel that belongs to none."""

_SWAPS = 4096
"""Of two blocks, that are tried so that classes are shared out well."""
_MISSING = np.array([[3], [1], [2]])
"""How bad it is for each of the parts to have nothing of a class."""


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


@dataclass(frozen=True, eq=False)
class Places:
    """To which part each pixel of an image belongs.

    Attributes:
        parts: ``[H, W]`` int8, places in :data:`PARTS`, or :data:`NOBODY`.
        apart: whether a part's samples must not show what belongs to another one. Not of random pixels, which
            have those of other parts all around them.
    """

    parts: NDArray[np.int8]
    apart: bool

    def of(self, part: Part) -> NDArray[np.bool_]:
        """``[H, W]``, the pixels of a part."""
        mine: NDArray[np.bool_] = np.equal(self.parts, PARTS.index(part))
        return mine

    def seen(self, part: Part) -> NDArray[np.bool_]:
        """``[H, W]``, the pixels that samples of a part may show."""
        if not self.apart:
            return np.ones(self.parts.shape, bool)
        seen: NDArray[np.bool_] = self.of(part) | np.equal(self.parts, NOBODY)
        return seen


def random_pixels(labels: NDArray[np.integer], shares: Shares, seed: int) -> Places:
    """Pixels of each class by chance, at least one for each part of a class that has three.

    Neighbours are much alike: what is scored on such a split tells of places that were seen, not of new ones.

    Args:
        labels: ``[H, W]`` classes from 0; below 0 those that no class is known of, which belong to nobody.
        shares: of each class that are held out.
        seed: of the draw.
    """
    parts = np.full(labels.shape, NOBODY, np.int8)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels[labels >= 0]):
        places = rng.permutation(np.flatnonzero(labels == label))
        ends = _ends(len(places), shares)
        for part, (start, end) in enumerate(zip((0, *ends), (*ends, len(places)), strict=True)):
            parts.flat[places[start:end]] = part
    return Places(parts, apart=False)


def spatial_blocks(
    labels: NDArray[np.integer], shares: Shares, seed: int, side: int = 16, buffer: int = 4
) -> Places:
    """Square blocks that belong to one part each, further than ``buffer`` pixels from those of other parts.

    Blocks are dealt by chance, so that classes are shared out well. Then what is trained on gives up the
    pixels that are near others', and what is validated on those near the test's; they belong to nobody.

    Args:
        labels: as of :func:`random_pixels`.
        shares: of the blocks that hold classes.
        seed: of the deals.
        side: of a block, pixels.
        buffer: pixels in rows, columns and diagonals that lie between pixels of two parts, at the least.
            Where it is at least half the side of a patch, no patch around a pixel of one part has a pixel of
            another.

    Raises:
        GeomoeError: too few blocks for three parts, or a part that nothing is left of.
    """
    expect(side >= 1, "side", side, "a whole number from 1")
    expect(buffer >= 0, "buffer", buffer, "a whole number from 0")
    rows, columns = (-(-size // side) for size in labels.shape)
    block = (np.arange(labels.shape[0]) // side)[:, None] * columns + np.arange(labels.shape[1]) // side
    known = labels >= 0
    counts = np.zeros((rows * columns, int(labels.max(initial=0)) + 1), np.int64)  # [blocks, classes]
    np.add.at(counts, (block[known], labels[known]), 1)
    holding = np.flatnonzero(counts.sum(1))
    if len(holding) < len(PARTS):
        raise GeomoeError(f"{len(holding)} blocks of {side} pixels hold a class; choose a smaller side")
    dealt = np.zeros(rows * columns, np.int8)  # a block without a class is there to be looked at
    dealt[holding] = _best_deal(counts[holding], shares, seed)
    parts = np.where(counts.sum(1) > 0, dealt, NOBODY).astype(np.int8)[block]
    for part in (1, 2):
        near = maximum_filter((parts == part).astype(np.uint8), 2 * buffer + 1, mode="constant") > 0
        parts[near & (parts != NOBODY) & (parts < part)] = NOBODY
    for part, name in enumerate(PARTS):
        if not (known & (parts == part)).any():
            raise GeomoeError(
                f"nothing is left for {name}; choose a smaller buffer than {buffer} or other shares"
            )
    return Places(parts, apart=True)


def _best_deal(counts: NDArray[np.int64], shares: Shares, seed: int) -> NDArray[np.int8]:
    """Parts of blocks with ``counts`` ``[blocks, classes]``: dealt by chance, then swapped while it helps."""
    rng = np.random.default_rng(seed)
    ends = _ends(len(counts), shares)
    deal = rng.permutation(np.repeat(np.arange(3, dtype=np.int8), np.diff([0, *ends, len(counts)])))
    of_class = counts / np.maximum(counts.sum(0), 1)
    wanted, there = np.array(shares.of_parts)[:, None], counts.any(0)

    def unevenness(deal: NDArray[np.int8]) -> float:
        given = np.stack([of_class[deal == part].sum(0) for part in range(3)])[:, there]  # [parts, classes]
        # A class that a part lacks cannot be learned, or scored, there: worse than any other unevenness.
        return float(np.abs(given - wanted).mean() + (_MISSING * (given == 0)).mean())

    least = unevenness(deal)
    for one, other in rng.integers(len(counts), size=(_SWAPS, 2)):
        swapped = deal.copy()
        swapped[[one, other]] = deal[[other, one]]
        if (now := unevenness(swapped)) < least:
            deal, least = swapped, now
    return deal


def items_by_folder(
    folders: Sequence[str], shares: Shares, seed: int, left_out: str | None = None
) -> list[Part]:
    """The part of each of several items, such as images, as a whole; of each folder by chance.

    Args:
        folders: in which each item lies.
        shares: of the items of each folder that are held out.
        seed: of the draw.
        left_out: the folder that is tested on, whole, in place of a share of each: what is scored then tells
            of a place, a season or a sensor that was not seen.

    Raises:
        GeomoeError: no folder of this name, no other one, or too few items to hold any out.
    """
    names = sorted(set(folders))
    if left_out is not None and (left_out not in names or len(names) < 2):
        raise GeomoeError(f"no folder {left_out!r} can be left out; there are: {', '.join(names)}")
    parts: list[Part] = ["test" if folder == left_out else "fit" for folder in folders]
    rng = np.random.default_rng(seed)
    for name in names:
        if name == left_out:
            continue
        items = rng.permutation([i for i, folder in enumerate(folders) if folder == name])
        if left_out is None:
            fit, rest = _ends(len(items), shares)
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


def whole_image(shape: tuple[int, int], part: Part) -> Places:
    """Of an image ``[H, W]`` that belongs to a part as a whole."""
    return Places(np.full(shape, PARTS.index(part), np.int8), apart=True)


def _ends(number: int, shares: Shares) -> tuple[int, int]:
    """How many of ``number`` things are trained on, and how many of them are not tested on."""
    if not number:
        return 0, 0
    least = int(number >= 3)  # then there is one for each
    test = min(max(round(shares.test * number), least), number - 1 - least)
    validation = min(max(round(shares.validation * number), least), number - 1 - test)
    return number - test - validation, number - test
