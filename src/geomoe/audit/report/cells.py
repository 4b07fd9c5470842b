"""Cells of a table as text: numbers of a column under each other, with the digits that tell them apart."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from geomoe.audit.section import Cell, Table

__all__ = ["Column", "columns", "with_minus"]

_DIGITS = 4
"""That are shown of the largest number of a column."""
_APART = 1e4
"""Largest over smallest of a column, from which its numbers do not share their digits behind the point."""
_SHORT = 26
"""Characters of a text that is not broken, such as a number with its interval."""
_NOTHING = "–"


class Column:
    """A column as it is shown.

    Attributes:
        title: above it.
        numeric: whether it holds numbers alone, which stand on the right.
        kind: ``number``, ``short`` of texts that stand in one line, or ``text``.
        texts: of its cells, from the top; with a minus sign, not a hyphen, and a dash where there is nothing.
    """

    def __init__(self, title: str, cells: Sequence[Cell]) -> None:
        self.title = title
        self.numeric = any(_number(c) for c in cells) and not any(isinstance(c, str) and c for c in cells)
        decimals = _decimals([float(c) for c in cells if _number(c)])  # type: ignore[arg-type]
        self.texts = [_text(cell, decimals) for cell in cells]
        short = max(map(len, self.texts), default=0) <= _SHORT
        self.kind = "number" if self.numeric else "short" if short else "text"


def columns(table: Table) -> list[Column]:
    """The columns of a table, from the left."""
    return [Column(title, [row[i] for row in table.rows]) for i, title in enumerate(table.columns)]


def with_minus(text: str) -> str:
    """A text whose negative numbers have a minus sign in place of a hyphen."""
    return re.sub(r"(?<![\w.\-])-(?=\d)", "−", text)


def _number(cell: Cell) -> bool:
    return isinstance(cell, int | float) and math.isfinite(cell)


def _decimals(numbers: Sequence[float]) -> int | None:
    """Digits behind the point of all numbers; None where each has its own."""
    sizes = [abs(number) for number in numbers if number]
    if all(number.is_integer() for number in numbers):
        return 0
    if max(sizes) / min(sizes) > _APART or max(sizes) < 1 / _APART:
        return None
    return _behind_the_point(max(sizes))


def _behind_the_point(size: float) -> int:
    first = -math.floor(math.log10(size))
    # Shares of many experts, which stand beside each other, have the same digits; what is very small has two.
    return max(_DIGITS - 1 + first, 0) if first <= 1 else max(_DIGITS, first + 1)


def _text(cell: Cell, decimals: int | None) -> str:
    if cell is None or cell == "":
        return _NOTHING
    if isinstance(cell, str):
        return with_minus(cell)
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
