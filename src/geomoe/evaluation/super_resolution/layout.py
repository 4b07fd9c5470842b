"""Where the parts of a picture go on the page: the whole image, its crops, results and their expert maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from geomoe.evaluation.super_resolution.compare import Comparison

__all__ = ["GAP", "HEAD", "LEGEND", "WIDTH", "Layout", "shape_of"]

# Inches: between parts, for a title of two lines, for the line below, of the page, of a legend.
GAP, HEAD, FOOT, WIDTH, LEGEND = 0.12, 0.38, 0.3, 10.5, 1.5
_MOST_COLUMNS = 5


@dataclass(frozen=True)
class Layout:
    """Sizes in inches.

    Attributes:
        rows, columns: of the panels of one crop.
        whole: width and height of the whole image.
        cell: width of a panel.
        top: height of the part with whole image and crops.
        result: width and height of a result beside its map.
        in_a_row: models in a row of the lower part.
        height: of the picture.
    """

    rows: int
    columns: int
    whole: tuple[float, float]
    cell: float
    top: float
    result: tuple[float, float]
    in_a_row: int
    height: float

    @classmethod
    def of(cls, comparison: Comparison) -> Layout:
        """A page of which no part overlaps another, however many crops and models there are."""
        panels, models = len(comparison.panels) + 1, len(comparison.panels) - 1
        rows = 1 if panels <= 3 else max(2, math.ceil(panels / _MOST_COLUMNS))
        columns = math.ceil(panels / rows)
        shape = shape_of(*comparison.low.shape[:0:-1])
        tall = rows * sum(shape_of(crop.width, crop.height) for crop in comparison.crops)  # in cells
        lines = rows * len(comparison.crops)
        # As wide as makes the whole image as high as the crops beside it, within limits.
        room = WIDTH - (columns + 2) * GAP
        wide = (tall * room / columns + (lines - 1) * HEAD) / (shape + tall / columns)
        wide = min(max(wide, 2.2), 4.6)
        cell = (room - wide) / columns
        beside = tall * cell + (lines - 1) * HEAD
        whole = (wide, min(wide * shape, max(beside, 4.0)))
        in_a_row = min(models, 2)
        side = min(((WIDTH - GAP) / in_a_row - LEGEND - 3 * GAP) / 2, 3.6)
        result = (side, side * shape)
        top = HEAD + max(whole[1], beside) + GAP
        below = math.ceil(models / in_a_row) * (HEAD + result[1] + GAP)
        return cls(rows, columns, whole, cell, top, result, in_a_row, top + below + FOOT)


def shape_of(width: int, height: int) -> float:
    """Height over width of the room that an image is given: a strip is not given all that it would fill."""
    return min(max(height / width, 0.3), 1.4)
