"""Pieces of polygons that strips of a map cut, held until they end. Needs shapely.

A hole of a piece lies in one strip, with the piece all around it, and stays as it is: only shells reach a
seam, and only they are united, once, when the polygon ends. What crosses a seam without being of the polygon
is outside the shells of both its sides, and becomes a hole when these are united.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely import Geometry

__all__ = ["Piece", "Rings", "Seam"]


@dataclass(frozen=True)
class Rings:
    """Closed rings, one after another; of a polygon its shell is the first.

    Attributes:
        xy: ``[n, 2]`` of their points, each ring's first one also at its end.
        counts: of the points of each ring.
    """

    xy: NDArray[Any]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Rings:
        """Those of a polygon of GeoJSON whose coordinates are whole numbers."""
        rings = found["coordinates"]
        counts = np.fromiter(map(len, rings), np.int64, len(rings))
        numbers = chain.from_iterable(chain.from_iterable(rings))
        return cls(np.fromiter(numbers, np.int32, 2 * int(counts.sum())).reshape(-1, 2), counts)

    @classmethod
    def joined(cls, parts: Sequence[Rings]) -> Rings:
        """The rings of all parts."""
        return cls(
            np.concatenate([part.xy for part in parts]), np.concatenate([part.counts for part in parts])
        )

    def polygon(self) -> Geometry:
        """The polygon whose rings they are."""
        return self._polygons(np.array([0, len(self.counts)]))[0]

    def filled(self) -> NDArray[Any]:
        """A polygon without holes of each ring."""
        return self._polygons(np.arange(len(self.counts) + 1))

    def _polygons(self, ends: NDArray[np.int64]) -> NDArray[Any]:
        at = np.concatenate([[0], np.cumsum(self.counts)])
        made: NDArray[Any] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, self.xy.astype(np.float64, copy=False), (at, ends)
        )
        return made


@dataclass
class Piece:
    """What strips have shown of a polygon.

    Attributes:
        value: of its class, or kind; see :meth:`geomoe.raster.vectors.strips.ClassMap.kinds`.
        shells: of its part in each strip.
        holes: that are whole.
    """

    value: int
    shells: list[Rings]
    holes: list[Rings]

    @classmethod
    def of(cls, value: int, rings: Rings) -> Piece:
        """Of what one strip shows."""
        first, shell = int(rings.counts[0]), rings.counts[:1]
        holes = [Rings(rings.xy[first:], rings.counts[1:])] if len(rings.counts) > 1 else []
        return cls(value, [Rings(rings.xy[:first], shell)], holes)

    def rings(self) -> Rings:
        """Of the whole polygon, without the points that strips left on its sides."""
        if len(self.shells) == 1:
            return Rings.joined([*self.shells, *self.holes])
        whole = shapely.simplify(shapely.union_all(Rings.joined(self.shells).filled()), 0)
        _, xy, (at, _) = shapely.to_ragged_array([whole])
        return Rings.joined([Rings(xy.astype(np.int32), np.diff(at)), *self.holes])


class Seam:
    """Pieces that reach down to where a strip ends, and which of them each pixel above that line is of.

    Args:
        width: of the map.
    """

    def __init__(self, width: int) -> None:
        self.pieces: list[Piece] = []
        self._above = np.full(width, -1)

    def move(self, cut: Sequence[Piece], top: int, below: int) -> Iterator[Piece]:
        """Join what the next strip shows, and go on to where that ends.

        Args:
            cut: its pieces that reach its first or last line.
            top: that first line, in rows of the map.
            below: that last one.

        Yields:
            Those that ended.
        """
        pieces = [*self.pieces, *cut]
        under, last = np.full_like(self._above, -1), np.full_like(self._above, -1)
        for number, piece in enumerate(cut, len(self.pieces)):
            _mark(under, piece.shells[0].xy, top, number)
            _mark(last, piece.shells[0].xy, below, number)
        pairs = np.stack([self._above, under])[:, (self._above >= 0) & (under >= 0)]
        values = np.array([piece.value for piece in pieces], int)
        pairs = pairs[:, values[pairs[0]] == values[pairs[1]]]
        links = coo_array((np.ones(pairs.shape[1]), tuple(pairs)), (len(pieces), len(pieces)))
        count, group = connected_components(links, directed=False)
        members: list[list[Piece]] = [[] for _ in range(count)]
        for piece, of in zip(pieces, group, strict=True):
            members[of].append(piece)
        open_, above = np.unique(group[last[last >= 0]], return_inverse=True)
        for of in np.setdiff1d(np.arange(count), open_):
            yield _one(members[of])
        self.pieces = [_one(members[of]) for of in open_]
        self._above = last
        self._above[last >= 0] = above


def _mark(row: NDArray[np.int64], shell: NDArray[np.int32], line: int, number: int) -> None:
    """Number the pixels of a row of which a shell has sides on a line."""
    on = shell[:, 1] == line
    along = on[:-1] & on[1:]
    for a, b in zip(shell[:-1, 0][along], shell[1:, 0][along], strict=True):
        row[min(a, b) : max(a, b)] = number


def _one(members: Sequence[Piece]) -> Piece:
    """Members as one: the largest, into which the others go, so that no list is copied at every strip."""
    into = max(members, key=lambda piece: len(piece.shells))
    for piece in members:
        if piece is not into:
            into.shells += piece.shells
            into.holes += piece.holes
    return into
