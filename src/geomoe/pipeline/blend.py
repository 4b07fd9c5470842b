"""One answer of several tiles where they overlap: a mean whose weights fade towards each tile's border.

Across the line between two cores the weight of one falls, and that of the other rises, as a raised cosine
over the overlap; their sum is 1. Nearer its border a tile of a model that sees far lacks more of what the
whole scene would show it, so that it counts less there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from geomoe.pipeline.tiles import Tiles

__all__ = ["blended"]


def blended(tiles: Tiles, number: int, given: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean over the core of a tile, of what it and those around it give.

    Args:
        tiles: that overlap.
        number: of the tile.
        given: by their numbers, ``[D, h, w]`` of each one's `Tiles.given`. Its own at least; those that are
            missing have no weight.

    Returns:
        ``[D, h, w]`` float32. The order of the tiles does not show.
    """
    core, own = tiles[number].core, given[number]
    total = np.zeros((len(own), core.height, core.width), dtype=np.float32)
    weights = np.zeros(total.shape[1:], dtype=np.float32)
    for near in sorted(given):
        of, box = tiles[near].core, tiles.given(near)
        left, top = max(core.x, box.x), max(core.y, box.y)
        right, bottom = (
            min(core.x + core.width, box.x + box.width),
            min(core.y + core.height, box.y + box.height),
        )
        here = slice(top - core.y, bottom - core.y), slice(left - core.x, right - core.x)
        there = slice(top - box.y, bottom - box.y), slice(left - box.x, right - box.x)
        down = _weights(np.arange(top, bottom), of.y, of.y + of.height, tiles.height, tiles.overlap)
        across = _weights(np.arange(left, right), of.x, of.x + of.width, tiles.width, tiles.overlap)
        weight = down[:, None] * across
        total[:, *here] += given[near][:, *there] * weight
        weights[here] += weight
    total /= weights
    return total


def _weights(at: NDArray[np.int_], start: int, stop: int, size: int, overlap: int) -> NDArray[np.float32]:
    """Of a core from ``start`` to ``stop``, at some pixels; it does not fade at the ends of the scene."""
    weights = np.ones(len(at))
    if start > 0:
        weights *= _rise(at, start, overlap)
    if stop < size:
        weights *= 1 - _rise(at, stop, overlap)
    return weights.astype(np.float32)


def _rise(at: NDArray[np.int_], line: int, overlap: int) -> NDArray[np.float64]:
    """From 0 at ``overlap`` before a line to 1 as far behind it, at the middles of pixels."""
    part = np.clip((at + 0.5 - line + overlap) / (2 * overlap), 0, 1)
    risen: NDArray[np.float64] = np.sin(np.pi / 2 * part) ** 2
    return risen
