"""Cutting a scene into tiles that a model can take one at a time."""

from __future__ import annotations

from dataclasses import dataclass

from geomoe.errors import GeomoeError
from geomoe.models.contract import ModelContract

__all__ = ["Box", "Tile", "plan_tiles", "tile_side"]


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
        core: input pixels whose output comes from this tile and no other.
        window: input pixels that the model is shown: the core and its margin, inside the scene.
    """

    core: Box
    window: Box

    @property
    def inner(self) -> tuple[slice, slice]:
        """Rows and columns of the core inside the window."""
        top, left = self.core.y - self.window.y, self.core.x - self.window.x
        return slice(top, top + self.core.height), slice(left, left + self.core.width)


def tile_side(contract: ModelContract, tile: int | None) -> int:
    """Side of a core: the model's own, or ``tile`` rounded up to the model's ``multiple``.

    Raises:
        GeomoeError: if ``tile`` is not positive.
    """
    if tile is None:
        tile = contract.tile
    if tile < 1:
        raise GeomoeError(f"a tile of {tile} pixels was asked for; expected 1 or more")
    return -(-tile // contract.multiple) * contract.multiple


def plan_tiles(width: int, height: int, contract: ModelContract, tile: int | None = None) -> list[Tile]:
    """Tiles whose cores cover every pixel of the scene once, in row-major order.

    A tile depends on nothing but its window and nothing is blended, so the order of work never shows in
    the result. Windows start on multiples of ``contract.multiple``, so that every tile sees the model's
    window grid where the whole scene would have it.

    Args:
        width: of the scene in input pixels.
        height: of the scene in input pixels.
        contract: of the model.
        tile: side of a core in input pixels, rounded up to a multiple of ``contract.multiple``.
    """
    side, multiple = tile_side(contract, tile), contract.multiple
    margin = -(-contract.margin // multiple) * multiple
    return [
        Tile(
            core=Box(x, y, min(side, width - x), min(side, height - y)),
            window=_grown(x, y, side, margin, width, height),
        )
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def _grown(x: int, y: int, side: int, margin: int, width: int, height: int) -> Box:
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(width, x + side + margin), min(height, y + side + margin)
    return Box(left, top, right - left, bottom - top)
