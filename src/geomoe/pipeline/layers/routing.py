"""What a model routes, by its structure and by the plans of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.routing.router import AnyRouter

__all__ = ["cell_of", "is_gated", "kernel_sizes", "on_pixels", "routed_layers", "unit_of"]


def is_gated(model: nn.Module) -> bool:
    """Whether a model's plan is a gate on the one expert that there is, so that nothing is chosen."""
    return getattr(getattr(model, "config", None), "head", "routed") == "gated"


def routed_layers(model: nn.Module) -> int:
    """How many layers route, by the modules of a model: its routers, or its banks where it has none."""
    routers = sum(1 for _ in _outermost(model, AnyRouter))
    return routers or sum(1 for _ in _outermost(model, ExpertBank))


def _outermost(module: nn.Module, kind: type[nn.Module]) -> Iterator[nn.Module]:
    if isinstance(module, kind):
        yield module
        return
    for child in module.children():
        yield from _outermost(child, kind)


def unit_of(
    plan: RoutingPlan, height: int, width: int, multiple: int | None = 1
) -> Literal["pixel", "cell", "image"] | None:
    """What one image's plan decides on: pixels, squares of them, the whole image, or something without a map.

    Args:
        plan: of a pass over one image. A model that pads may route more pixels, at the bottom and right.
        height: of the image.
        width: of the image.
        multiple: as of :class:`geomoe.models.contract.Tiling`; sides of squares divide it. None of a model
            that does not say one, whose squares have the least side by which they cover the image.
    """
    if plan.grid == (1,) and plan.num_rows == 1:
        return "image"
    side = cell_of(plan, height, width, multiple)
    return None if side is None else "pixel" if side == 1 else "cell"


def cell_of(plan: RoutingPlan, height: int, width: int, multiple: int | None = 1) -> int | None:
    """Side in pixels of the squares that a plan decides on; None where it has no grid over the image."""
    if len(plan.grid) != 3 or plan.grid[0] != 1 or plan.num_rows != plan.grid[1] * plan.grid[2]:
        return None
    _, rows, columns = plan.grid
    least = max(-(-height // rows), -(-width // columns))
    if multiple is None:
        return least
    return next((side for side in range(least, multiple + 1) if multiple % side == 0), None)


def on_pixels(
    plan: RoutingPlan, values: NDArray[Any], height: int, width: int, multiple: int | None = 1
) -> NDArray[Any]:
    """Values of a plan's rows, ``[..., N]``, on the pixels of its one image: ``[..., height, width]``.

    A plan for whole images gives every pixel the same value; pixels that a model padded are dropped.

    Raises:
        ValueError: a plan of which :func:`unit_of` is None.
    """
    unit = unit_of(plan, height, width, multiple)
    if unit is None:
        raise ValueError(
            f"a plan with grid {plan.grid} is none for the {width} x {height} pixels of one image"
        )
    if unit == "image":
        return np.broadcast_to(values[..., None], (*values.shape[:-1], height, width))
    side = cell_of(plan, height, width, multiple) or 1
    of_cells = values.reshape(*values.shape[:-1], *plan.grid[1:])
    return of_cells.repeat(side, -1).repeat(side, -2)[..., :height, :width]


def kernel_sizes(model: nn.Module, plan: RoutingPlan) -> tuple[int, ...] | None:
    """The kernel size of each group of experts, where the model says it."""
    sizes = getattr(getattr(model, "config", None), "kernel_sizes", None)
    return tuple(sizes) if sizes is not None and len(sizes) == len(plan.group_sizes) else None
