"""The layers of a trace by name, and their plans sample by sample."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from geomoe.moe.plan import RoutingPlan, RoutingTrace

__all__ = ["choices_by_sample", "layer_names", "rows_by_sample"]


def layer_names(model: nn.Module, trace: RoutingTrace) -> list[str]:
    """A name for each plan of a trace, by the place of its router in the model, such as ``blocks.1.ffn``.

    A layer that ran several times has its number behind its name.
    """
    place = {module: name for name, module in model.named_modules()}
    names = []
    for number, router in enumerate(trace.routers):
        path = (place.get(router, "") if router is not None else "").split(".")
        while path and path[-1] in ("router", "moe"):
            path.pop()
        names.append(".".join(path) or f"layer {number}")
    counts, seen = Counter(names), Counter[str]()
    for i, name in enumerate(names):
        if counts[name] > 1:
            seen[name] += 1
            names[i] = f"{name} ({seen[name]})"
    return names


def rows_by_sample(plan: RoutingPlan, samples: int) -> Tensor | None:
    """``[samples, rows]`` int64, which rows of a plan are of which sample; None where that cannot be said."""
    if not plan.grid or plan.grid[0] != samples or plan.num_rows % samples:
        return None
    return torch.arange(plan.num_rows, device=plan.experts.device).view(samples, -1)


def choices_by_sample(plan: RoutingPlan, samples: int) -> Tensor | None:
    """``[samples, E]`` float64, how many choices of each sample fell on each expert and were carried out."""
    rows = rows_by_sample(plan, samples)
    if rows is None:
        return None
    carried = torch.ones_like(plan.experts, dtype=torch.float64)
    if plan.kept is not None:
        carried = carried * plan.kept
    if plan.valid is not None:
        carried = carried * plan.valid[:, None]
    found = carried.new_zeros(samples, plan.num_experts)
    return found.scatter_add(1, plan.experts.view(samples, -1), carried.view(samples, -1))
