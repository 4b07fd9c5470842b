"""The options of a class that passes some of them on to its base."""

from __future__ import annotations

import inspect

__all__ = ["options_of"]


def options_of(kind: type) -> dict[str, inspect.Parameter]:
    """By name: those of the class itself, then, if it takes ``**others``, those of its bases."""
    found: dict[str, inspect.Parameter] = {}
    for one in kind.__mro__:
        if "__init__" not in vars(one):
            continue
        taken = inspect.signature(one).parameters
        found |= {
            name: option
            for name, option in taken.items()
            if name not in found and option.kind is not option.VAR_KEYWORD
        }
        if all(option.kind is not option.VAR_KEYWORD for option in taken.values()):
            break
    return found
