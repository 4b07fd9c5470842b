"""Splits of images by their pixels: what is trained on, validated on and tested on.

Any data set whose samples are images with masks takes any of them. What is drawn depends on the seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from geomoe.data.split import PARTS, Part, Shares, ends_of
from geomoe.errors import GeomoeError, expect

__all__ = ["NOBODY", "Places", "columns", "random_pixels", "spatial_blocks", "whole_image"]

NOBODY = -1
"""In a map of parts, a pixel that belongs to none of :data:`geomoe.data.split.PARTS`."""

_DEALS, _SWAPS = 4, 1024
"""Deals of blocks, of which the best is taken, and swaps of two blocks that are tried in each."""
_MISSING = np.array([[3], [1], [2]])
"""How bad it is for each of the parts to have nothing of a class."""


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
        ends = ends_of(len(places), shares)
        for part, (start, end) in enumerate(zip((0, *ends), (*ends, len(places)), strict=True)):
            parts.flat[places[start:end]] = part
    return Places(parts, apart=False)


def spatial_blocks(
    labels: NDArray[np.integer], shares: Shares, seed: int, side: int = 16, buffer: int = 4
) -> Places:
    """Square blocks that belong to one part each, further than ``buffer`` pixels from those of other parts.

    Blocks are dealt by chance, so that classes are shared out well by what is left of them: what is trained
    on gives up the pixels that are near others', and what is validated on those near the test's; they belong
    to nobody.

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
    counts = _counts_by_edge(labels, side, buffer)
    # A block without a class is there to be looked at.
    holding: NDArray[np.bool_] = np.any(counts, (2, 3, 4))
    if holding.sum() < len(PARTS):
        raise GeomoeError(f"{holding.sum()} blocks of {side} pixels hold a class; choose a smaller side")
    dealt = _best_deal(counts, holding, shares, seed)
    rows, columns = (np.arange(size) // side for size in labels.shape)
    parts, known = dealt[rows[:, None], columns], labels >= 0
    for part in (1, 2):
        near = maximum_filter((parts == part).astype(np.uint8), 2 * buffer + 1, mode="constant") > 0
        parts[near & (parts != NOBODY) & (parts < part)] = NOBODY
    for part, name in enumerate(PARTS):
        if not (known & (parts == part)).any():
            raise GeomoeError(
                f"nothing is left for {name}; choose a smaller buffer than {buffer} or other shares"
            )
    return Places(parts, apart=True)


def _counts_by_edge(labels: NDArray[np.integer], side: int, buffer: int) -> NDArray[np.int64]:
    """Pixels of each class in each block, ``[rows, columns, 4, 4, classes]``.

    By the edges of the block that they are within ``buffer`` of: none, the upper, the lower, both; likewise
    to the left and to the right.
    """
    blocks, near = [], []
    for size in labels.shape:
        number, at = np.divmod(np.arange(size), side)
        blocks.append(number)
        near.append((at < buffer) + 2 * (at >= side - buffer))
    shape = (*(int(number.max(initial=0)) + 1 for number in blocks), 4, 4, int(labels.max(initial=0)) + 1)
    counts = np.zeros(shape, np.int64)
    y, x = np.nonzero(labels >= 0)
    np.add.at(counts, (blocks[0][y], blocks[1][x], near[0][y], near[1][x], labels[y, x]), 1)
    return counts


def _left(deal: NDArray[np.int8], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """``[parts, classes]``, what a deal ``[rows, columns]`` leaves of classes once parts keep apart."""
    around = np.pad(deal, 1, constant_values=NOBODY)
    up, here, down = around[:-2], around[1:-1], around[2:]
    tall = [here, np.maximum(up, here), np.maximum(here, down), np.maximum(np.maximum(up, here), down)]
    kept = np.empty((*deal.shape, 4, 4), bool)  # a pixel near a block of a later part goes to nobody
    for v, found in enumerate(tall):
        left, here, right = found[:, :-2], found[:, 1:-1], found[:, 2:]
        wide = [here, np.maximum(left, here), np.maximum(here, right)]
        wide.append(np.maximum(wide[1], right))
        for h, latest in enumerate(wide):
            kept[:, :, v, h] = latest == deal
    mine = np.stack([kept & (deal == part)[:, :, None, None] for part in range(len(PARTS))])
    of_all: NDArray[np.int64] = np.tensordot(mine.astype(np.float32), counts.astype(np.float32), 4)
    return of_all


def _best_deal(
    counts: NDArray[np.int64], holding: NDArray[np.bool_], shares: Shares, seed: int
) -> NDArray[np.int8]:
    """Parts ``[rows, columns]`` of blocks: dealt by chance, then swapped while it helps.

    Args:
        counts: as of :func:`_counts_by_edge`.
        holding: ``[rows, columns]``, blocks that are dealt; the others are nobody's.
        shares: of the blocks.
        seed: of the deal.
    """
    rng = np.random.default_rng(seed)
    number = int(holding.sum())
    ends = ends_of(number, shares)
    dealt = np.repeat(np.arange(3, dtype=np.int8), np.diff([0, *ends, number]))
    there = counts.any((0, 1, 2, 3))
    wanted, counts = np.array(shares.of_parts)[:, None], counts[..., there]

    def placed(deal: NDArray[np.int8]) -> NDArray[np.int8]:
        parts = np.full(holding.shape, NOBODY, np.int8)
        parts[holding] = deal
        return parts

    def unevenness(deal: NDArray[np.int8]) -> float:
        left = _left(placed(deal), counts)
        given = left / np.maximum(left.sum(0), 1)  # [parts, classes]
        # A class that a part lacks cannot be learned, or scored, there: worse than any other unevenness.
        return float(np.abs(given - wanted).mean() + (_MISSING * (given == 0)).mean())

    def swapped() -> tuple[float, NDArray[np.int8]]:
        deal = rng.permutation(dealt)
        least = unevenness(deal)
        for one, other in rng.integers(number, size=(_SWAPS, 2)):
            if deal[one] == deal[other]:
                continue
            changed = deal.copy()
            changed[[one, other]] = deal[[other, one]]
            if (now := unevenness(changed)) < least:
                deal, least = changed, now
        return least, deal

    return placed(min((swapped() for _ in range(_DEALS)), key=lambda found: found[0])[1])


def whole_image(shape: tuple[int, int], part: Part) -> Places:
    """Of an image ``[H, W]`` that belongs to a part as a whole."""
    return Places(np.full(shape, PARTS.index(part), np.int8), apart=True)


def columns(shape: tuple[int, int], shares: Shares, buffer: int = 16) -> Places:
    """The columns of an image from left to right: trained on, validated on, tested on; with gaps between.

    Nothing is drawn. A gap is taken from the part on its left and belongs to nobody.

    Args:
        shape: height and width of the image.
        shares: of the columns, gaps included.
        buffer: columns in a gap.

    Raises:
        GeomoeError: an image that is too narrow.
    """
    expect(buffer >= 0, "buffer", buffer, "a whole number from 0")
    parts = np.full(shape, NOBODY, np.int8)
    ends = [0, *ends_of(shape[1], shares), shape[1]]
    for part, (start, end) in enumerate(pairwise(ends)):
        end -= buffer if part + 1 < len(PARTS) else 0
        if end <= start:
            raise GeomoeError(
                f"nothing is left for {PARTS[part]} of {shape[1]} columns; choose a smaller buffer than "
                f"{buffer} or other shares"
            )
        parts[:, start:end] = part
    return Places(parts, apart=True)
