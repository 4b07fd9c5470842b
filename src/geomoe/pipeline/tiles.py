"""Cutting a scene into tiles that a model can take one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from geomoe.errors import GeomoeError
from geomoe.models.contract import Tiling

__all__ = ["Box", "Tile", "Tiles", "tile_side"]


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Tile:
    """One call of the model.

    Attributes:
        core: input pixels whose output comes from this tile, and from no other where nothing is blended.
        window: input pixels that the model is shown: the core and its margin, inside the scene.
    """

    core: Box
    window: Box

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the core inside the window."""
        top, left = self.core.y - self.window.y, self.core.x - self.window.x
        return slice(top, top + self.core.height), slice(left, left + self.core.width)


def tile_side(tiling: Tiling, tile: int | None) -> int:
    """Side of a core: the model's own, or ``tile`` rounded up to the model's ``multiple``.

    Raises:
        GeomoeError: if ``tile`` is not positive.
    """
    if tile is None:
        tile = tiling.tile
    if tile < 1:
        raise GeomoeError(f"a tile of {tile} pixels was asked for; expected 1 or more")
    return -(-tile // tiling.multiple) * tiling.multiple


class Tiles(Sequence[Tile]):
    """Tiles whose cores cover every pixel of a scene once, in row-major order; each is made when asked for.

    What a tile's model gives depends on nothing but its window, so the order of work never shows in the
    result. Windows start on multiples of ``tiling.multiple``, so that every tile sees the model's window grid
    where the whole scene would have it.

    Args:
        width, height: of the scene in input pixels.
        tiling: of the model.
        tile: side of a core in input pixels, rounded up to a multiple of ``tiling.multiple``.
        blend: whether a tile also gives to the cores around it, over the ``overlap``. Windows at the border
            of the scene are as large as others then, for a model that sees all of a window.

    Attributes:
        width, height: as given.
        tiling: as given.
        columns: tiles in a row.
        margin: input pixels around a core that the model is shown.
        overlap: input pixels of other cores, on each side of its own, that a tile gives to; 0 without
            ``blend``. At most half a core, so that no pixel is given to by more than two tiles each way.
    """

    def __init__(
        self, width: int, height: int, tiling: Tiling, tile: int | None = None, *, blend: bool = False
    ) -> None:
        self.width, self.height, self.tiling = width, height, tiling
        self._side = tile_side(tiling, tile)
        self.margin = -(-tiling.margin // tiling.multiple) * tiling.multiple
        self.overlap = min(self.margin, self._side // 2) if blend else 0
        self.columns = -(-width // self._side)

    def __len__(self) -> int:
        return self.columns * -(-self.height // self._side)

    @property
    def shown(self) -> int:
        """Pixels that the model is shown in all, those of margins as often as they are shown."""
        widths = sum(self[i].window.width for i in range(self.columns))
        return widths * sum(self[i].window.height for i in range(0, len(self), self.columns))

    @overload
    def __getitem__(self, number: int) -> Tile: ...

    @overload
    def __getitem__(self, number: slice) -> list[Tile]: ...

    def __getitem__(self, number: int | slice) -> Tile | list[Tile]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        row, column = divmod(number % len(self), self.columns)
        x, y = column * self._side, row * self._side
        core = Box(x, y, min(self._side, self.width - x), min(self._side, self.height - y))
        (left, right), (top, bottom) = self._shown(x, self.width), self._shown(y, self.height)
        return Tile(core, Box(left, top, right - left, bottom - top))

    def around(self, number: int) -> list[int]:
        """Tiles that give to the core of one, itself among them, in their order."""
        if not self.overlap:
            return [number]
        row, column = divmod(number, self.columns)
        rows = range(max(0, row - 1), min(len(self) // self.columns, row + 2))
        columns = range(max(0, column - 1), min(self.columns, column + 2))
        return [r * self.columns + c for r in rows for c in columns]

    def given(self, number: int) -> Box:
        """Pixels that a tile gives to: its core and the overlap, inside the scene."""
        core = self[number].core
        left, top = max(0, core.x - self.overlap), max(0, core.y - self.overlap)
        right = min(self.width, core.x + core.width + self.overlap)
        bottom = min(self.height, core.y + core.height + self.overlap)
        return Box(left, top, right - left, bottom - top)

    def _shown(self, start: int, size: int) -> tuple[int, int]:
        """The window of a core that starts there, along a side of the scene of so many pixels."""
        first, last = start - self.margin, start + self._side + self.margin
        if self.overlap:
            step = self.tiling.multiple
            first = max(0, min(first, -((last - first - size) // step) * step))
            last = first + self._side + 2 * self.margin
        return max(0, first), min(size, last)
