"""Figures of matplotlib as files, ``.png`` or ``.pdf``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from geomoe.errors import GeomoeError
from geomoe.evaluation.expert_maps import ExpertMap
from geomoe.files import atomic_write, overlap

__all__ = ["Canvas", "check_target", "expert_legend", "title", "write_figure"]

_SUFFIXES = (".png", ".pdf")
_DPI = 120


def check_target(target: Path, image: Path, models: Sequence[str] = (), *, overwrite: bool) -> None:
    """Refuse a file that :func:`write_figure` could not write, before the work starts.

    Args:
        target: the picture to be.
        image: what it is of.
        models: by whom: names, or files of weights.
        overwrite: whether ``target`` may exist.

    Raises:
        GeomoeError: with what is wrong with it.
    """
    if target.suffix.lower() not in _SUFFIXES:
        raise GeomoeError(f"{target} must end in {' or '.join(_SUFFIXES)}")
    if not target.parent.is_dir():
        raise GeomoeError(f"{target.parent} does not exist; make the folder first")
    if not os.access(target.parent, os.W_OK):
        raise GeomoeError(f"{target.parent} is not writable; choose another folder")
    if target.is_dir():
        raise GeomoeError(f"{target} is a folder; give the name of a file to write")
    if overlap([target], [image, *map(Path, models)]):
        raise GeomoeError(f"{target} is the image itself, or a file of weights; write to another file")
    if target.exists() and not overwrite:
        raise GeomoeError(f"{target} exists; use --overwrite to replace it")


def write_figure(make: Callable[[], Figure], target: Path) -> None:
    """Write what ``make`` draws in one step, in the place of any older file.

    The same drawing gives the same bytes, whatever the user's settings of matplotlib, and whenever.

    Raises:
        GeomoeError: if it cannot be written; nothing is left there then.
    """
    kind = target.suffix.lower().removeprefix(".")
    unsaid = {"png": {"Software": None}, "pdf": {"CreationDate": None}}[kind]
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = make()
        with atomic_write(target) as file:
            figure.savefig(file, format=kind, dpi=_DPI, metadata=unsaid)


class Canvas:
    """A figure, of a size in inches, on which axes are placed in inches from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.figure, self._size = Figure(figsize=(width, height), facecolor="white"), (width, height)

    def axes(self, label: str, x: float, y: float, width: float, height: float) -> Axes:
        """Empty axes without frame and ticks."""
        wide, high = self._size
        box = (x / wide, 1 - (y + height) / high, width / wide, height / high)
        axes = self.figure.add_axes(box, label=label, xticks=[], yticks=[], anchor="N")
        axes.spines[:].set_visible(False)
        return axes


def title(axes: Axes, name: str, below: str, width: float) -> None:
    """Two lines above axes that are so wide, in inches."""
    room = max(int(width / 0.072), 8)
    lines = (line if len(line) <= room else f"{line[: room - 3]}..." for line in (name, below))
    axes.set_title("\n".join(lines), fontsize=8, pad=3, linespacing=1.1, parse_math=False)


def expert_legend(axes: Axes, width: float, height: float, experts: ExpertMap) -> None:
    """Every expert of a map with its share, in inches; the largest ones where there is no room for all."""
    line = 0.16
    axes.set(xlim=(0, width), ylim=(height, 0))
    room = max(int(height / line), 2)
    seen = [i for i, share in enumerate(experts.shares) if share]
    largest = sorted(seen, key=lambda i: -experts.shares[i])
    kept = seen if len(seen) <= room else sorted(largest[: room - 1])
    colours = experts.colours / 255
    for number, i in enumerate(kept):
        axes.add_patch(Rectangle((0.02, number * line + 0.02), 0.16, line - 0.04, color=colours[i]))
        _legend_text(axes, width, number * line, experts.names[i], experts.shares[i])
    if len(kept) < len(seen):
        rest = [experts.shares[i] for i in largest[room - 1 :]]
        _legend_text(axes, width, len(kept) * line, f"{len(rest)} more", sum(rest))


def _legend_text(axes: Axes, width: float, y: float, name: str, share: float) -> None:
    axes.text(0.25, y + 0.08, name, fontsize=7, va="center")
    said = f"{share:.1%}" if share >= 0.001 else "< 0.1%"
    axes.text(width - 0.05, y + 0.08, said, fontsize=7, va="center", ha="right")
