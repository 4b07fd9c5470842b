"""Cells of a table as text: numbers of a column under each other, with the digits that tell them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from geomoe.audit.section import Cell, Table

__all__ = ["Column", "columns"]

_DIGITS = 4
"""That are shown of the largest number of a column."""
_APART = 1e4
"""Largest over smallest of a column, from which its numbers do not share their digits behind the point."""
_NOTHING = "–"


class Column:
    """A column as it is shown.

    Attributes:
        title: above it.
        numeric: whether it holds numbers alone, which stand on the right.
        texts: of its cells, from the top; with a minus sign, not a hyphen, and a dash where there is nothing.
    """

    def __init__(self, title: str, cells: Sequence[Cell]) -> None:
        self.title = title
        self.numeric = any(_number(c) for c in cells) and not any(isinstance(c, str) and c for c in cells)
        decimals = _decimals([float(c) for c in cells if _number(c)])  # type: ignore[arg-type]
        self.texts = [_text(cell, decimals) for cell in cells]


def columns(table: Table) -> list[Column]:
    """The columns of a table, from the left."""
    return [Column(title, [row[i] for row in table.rows]) for i, title in enumerate(table.columns)]


def _number(cell: Cell) -> bool:
    return isinstance(cell, int | float) and math.isfinite(cell)


def _decimals(numbers: Sequence[float]) -> int | None:
    """Digits behind the point of all numbers; None where each has its own."""
    sizes = [abs(number) for number in numbers if number]
    if all(number.is_integer() for number in numbers):
        return 0
    if max(sizes) / min(sizes) > _APART:
        return None
    return _behind_the_point(max(sizes))


def _behind_the_point(size: float) -> int:
    wanted = _DIGITS - 1 - math.floor(math.log10(size))
    # Shares of many experts, which stand beside each other, keep the digits of larger ones.
    return max(0, min(wanted, _DIGITS) if size >= 0.01 else wanted)


def _text(cell: Cell, decimals: int | None) -> str:
    if cell is None or cell == "":
        return _NOTHING
    if isinstance(cell, str):
        return cell
    if not math.isfinite(cell):
        return _NOTHING if math.isnan(cell) else "∞" if cell > 0 else "−∞"
    if isinstance(cell, int) or (decimals is None and cell.is_integer()):
        decimals = 0
    if decimals is None:
        text = (
            f"{cell:.{_DIGITS - 2}e}"
            if abs(cell) < 1 / _APART
            else f"{cell:,.{_behind_the_point(abs(cell))}f}"
        )
    else:
        text = f"{cell:,.{decimals}f}"
    return text.replace("-", "−")
