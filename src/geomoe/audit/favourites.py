"""The places that each expert likes best, as pictures."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geomoe.audit.drawing import picture
from geomoe.audit.rows import Cells, gate_shares
from geomoe.data.sample import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["Favourites"]

_LIKED, _CROP = 6, 16
"""Places kept of each expert, and the least side of their pictures, pixels."""


@dataclass(order=True)
class _Place:
    """A place that an expert was given: how sure the router was, what settles ties, and a picture.

    ``at`` is the square that was decided on, in pixels of the picture: left, top and side.
    """

    sure: float
    number: int
    crop: NDArray[np.float32] = field(compare=False)
    at: tuple[int, int, int] = field(compare=False)


@dataclass
class Favourites:
    """Of one layer, by expert, in a heap whose first is the least sure."""

    places: list[list[_Place]] = field(default_factory=list)

    def add(self, cells: Cells, batch: Batch, clusters: Tensor) -> None:
        """Keep of each expert the places of which the router is surest, one of each cluster."""
        plan = cells.plan
        self.places = self.places or [[] for _ in range(plan.num_experts)]
        sure = plan.probabilities.detach() * (gate_shares(plan) > 0)
        for cluster in clusters.unique().tolist():
            mine = (clusters == cluster).nonzero()[:, 0]
            surest, place = sure[mine].max(0)  # [E]
            for expert, best in enumerate(self.places):
                value = float(surest[expert])
                if value <= 0 or (len(best) == _LIKED and value <= best[0].sure):
                    continue
                crop, at = _crop(batch["image"], cells, int(mine[place[expert]]))
                (heapq.heappushpop if len(best) == _LIKED else heapq.heappush)(
                    best, _Place(value, -cluster, crop, at)
                )

    def draw(self, drawing: Drawing) -> None:
        """Small pictures, a row for each expert."""
        drawing.set_size_inches(0.9 * _LIKED + 0.4, 1.05 * len(self.places))
        axes = drawing.subplots(len(self.places), _LIKED, squeeze=False)
        drawing.subplots_adjust(0.09, 0.01, 0.99, 0.98, 0.05, 0.2)
        for expert, (places, best) in enumerate(zip(axes, self.places, strict=True)):
            places[0].text(
                -0.15,
                0.5,
                f"expert {expert}",
                rotation=90,
                va="center",
                ha="right",
                fontsize=7,
                transform=places[0].transAxes,
            )
            for place in places:
                place.set_axis_off()
            for place, one in zip(places, sorted(best, reverse=True), strict=False):
                place.imshow(one.crop, interpolation="nearest")
                left, top, side = one.at
                if side < len(one.crop):
                    for colour, width in (("black", 1.6), ("white", 0.8)):
                        place.plot(
                            np.array([0, 1, 1, 0, 0]) * side + left - 0.5,
                            np.array([0, 0, 1, 1, 0]) * side + top - 0.5,
                            color=colour,
                            linewidth=width,
                        )
                place.set_title(f"{one.sure:.2f}", fontsize=6, pad=1)


def _crop(images: Tensor, cells: Cells, row: int) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """The square of a row with what is around it, of one side in a layer, and where it lies there."""
    side = min(max(_CROP, 4 * cells.side), cells.height, cells.width)
    sample, place = divmod(row, math.prod(cells.grid))
    y, x = (cells.side * (2 * at + 1) // 2 for at in divmod(place, cells.grid[1]))
    sizes = ((y, cells.height), (x, cells.width))
    top, left = (min(max(at - side // 2, 0), size - side) for at, size in sizes)
    corner = (cells.side * at for at in reversed(divmod(place, cells.grid[1])))
    at = tuple(own - edge for own, edge in zip(corner, (left, top), strict=True))
    return picture(images[sample])[top : top + side, left : left + side], (at[0], at[1], cells.side)
