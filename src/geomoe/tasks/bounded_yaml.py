"""YAML of a size that can be known: a few lines of aliases of aliases stand for more than memory holds."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["check_yaml", "load_yaml"]

_CHARACTERS = 1_000_000
_DEPTH = 50


def load_yaml(text: str) -> Any:
    """As ``yaml.safe_load``, after :func:`check_yaml`; raises YAMLError for both."""
    check_yaml(text)
    return yaml.safe_load(text)


def check_yaml(text: str) -> None:
    """Raise YAMLError where ``text``, every alias written out, is too long or deep for a configuration."""
    sizes: dict[str, float] = {}  # characters of what an anchor names
    open_parts: list[tuple[str | None, float]] = []  # anchor, and characters before it
    total = 0.0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(event.anchor, float("inf"))  # that is not closed yet: it holds itself
        elif isinstance(event, yaml.ScalarEvent):
            total += len(event.value) + 1
            if event.anchor:
                sizes[event.anchor] = len(event.value) + 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_parts.append((event.anchor, total))
            if event.anchor:
                sizes.pop(event.anchor, None)
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_parts.pop()
            if anchor:
                sizes[anchor] = total - before
        if total > _CHARACTERS or len(open_parts) > _DEPTH:
            raise yaml.YAMLError(
                f"with its aliases written out it has more than {_CHARACTERS} characters, or its lists are "
                f"nested more than {_DEPTH} deep"
            )
