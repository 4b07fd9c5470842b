"""What shapes tell of a configuration."""

from __future__ import annotations

import math
import re

from geomoe.errors import GeomoeError
from geomoe.models.published.layout import State

__all__ = ["count", "expect", "key_window", "numbered", "product_of_shuffles", "root", "shape", "window"]


def shape(state: State, name: str) -> tuple[int, ...]:
    """Of the tensor called ``name``; raises GeomoeError where there is none, or nothing in it.

    So no side is longer than the file is.
    """
    if name not in state:
        raise GeomoeError(f"it has no {name}, which tells the size of such a network")
    expect(state[name].numel() > 0, f"{name} is empty")
    return tuple(state[name].shape)


def expect(true: bool, what: str) -> None:
    """Raise GeomoeError unless something holds that a layout takes for granted."""
    if not true:
        raise GeomoeError(f"it is not a network as published: {what}")


def count(state: State, pattern: str) -> int:
    """How many numbers ``{i}`` of ``pattern``, which begins a name, there are.

    They begin at 0 and none is left out: so never more than there are tensors, whatever number a name holds.
    """
    expression = re.compile(re.escape(pattern).replace(r"\{i\}", r"(\d+)"))
    found = {match[1] for name in state if (match := expression.match(name))}
    expect(found == {str(i) for i in range(len(found))}, f"of {pattern} some numbers are left out")
    return len(found)


def numbered(state: State, name: str) -> int:
    """How many convolutions are called ``name`` and a number from 1."""
    number = 0
    while f"{name}{number + 1}.weight" in state:
        number += 1
    return number


def root(number: int) -> int:
    """The whole square root; raises GeomoeError where there is none."""
    side = math.isqrt(number)
    expect(side * side == number, f"{number} rows are no square")
    return side


def window(state: State, table: str) -> int:
    """Side of the windows that a position table of ``(2w - 1)**2`` rows is for."""
    return (root(shape(state, table)[0]) + 1) // 2


def key_window(state: State, table: str, window: int) -> int:
    """Side of the key windows of a table of ``(w + e - 1)**2`` rows."""
    return root(shape(state, table)[0]) - window + 1


def product_of_shuffles(state: State, upsample: str) -> int:
    """The scale of convolutions ``upsample.0``, ``upsample.2`` ..., each followed by a pixel shuffle."""
    scale = 1
    for i in range(0, 2 * len(state), 2):
        name = f"{upsample}.{i}.weight"
        if name not in state:
            break
        rows, columns = shape(state, name)[:2]
        expect(columns > 0 and rows % columns == 0, f"{name} has {rows} rows for {columns} columns")
        scale *= root(rows // columns)
    return scale
