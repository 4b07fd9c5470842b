"""Splits of files: what is trained on, and what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["every", "every_of_each"]


def every(items: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """The rest, and every k-th, for ``share`` of them; at least one where any is wanted and two are there."""
    if not share or len(items) < 2:
        return list(items), []
    step = max(2, round(1 / share))
    kept = set(range(step - 1, len(items), step)) or {len(items) - 1}
    return [p for i, p in enumerate(items) if i not in kept], [items[i] for i in sorted(kept)]


def every_of_each(paths: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """As :func:`every`, of the files of each folder: where folders are classes, each keeps its share."""
    rest: list[Path] = []
    kept: list[Path] = []
    for folder in sorted({path.parent for path in paths}):
        more, held = every([path for path in paths if path.parent == folder], share)
        rest, kept = rest + more, kept + held
    return rest, kept
