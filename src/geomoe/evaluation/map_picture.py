"""A picture of a class map with its legend. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from geomoe.evaluation.figures import write_figure
from geomoe.raster.read.quicklook import class_counts, quicklook

__all__ = ["draw_map", "figure_of_map"]

_SIDE = 1000
"""Pixels of the map that are drawn at most, each way; of larger ones overviews."""
_INCHES = 6.0
_LEGEND = 2.6


def draw_map(path: Path, target: Path) -> None:
    """Write a picture of a class map, ``.png`` or ``.pdf``, in the place of any older one.

    Raises:
        GeomoeError: no class map that geomoe wrote, or a picture that cannot be written.
    """
    write_figure(lambda: figure_of_map(path), target)


def figure_of_map(path: Path) -> Figure:
    """The map, and beside it the classes that are on it, with their shares of all its pixels with data."""
    data, classes = quicklook(path, _SIDE)
    colours = np.full((256, 3), 255, np.uint8)  # where there is no data: white, as the paper
    for each in classes:
        colours[each.value] = each.rgb
    height, width = data.shape
    high, wide = (_INCHES * side / max(height, width) for side in (height, width))
    figure = Figure((wide + _LEGEND, max(high, 1.5)))
    axes = figure.add_axes((0, 0, wide / (wide + _LEGEND), 1), label="map")
    axes.imshow(colours[data], interpolation="nearest")
    axes.set_axis_off()
    counts = class_counts(path)
    known = max(int(counts[1:].sum()), 1)
    handles = [
        Patch(color=each.colour, label=f"{each.name}, {counts[each.value] / known:.1%}")
        for each in classes
        if counts[each.value]
    ]
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(wide / (wide + _LEGEND), 0.5), fontsize=8,
        frameon=False,
    )  # fmt: skip
    return figure
