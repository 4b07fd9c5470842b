"""The best that a plan of one expert for each row could do, chosen with the truth in hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from geomoe.audit.plans import changed, constant, sample_of_rows
from geomoe.audit.units import cell_losses, sample_losses
from geomoe.data.sample import Batch
from geomoe.moe.plan import RoutingPlan
from geomoe.tasks.task import Task

__all__ = ["oracle_plan"]


def oracle_plan(
    task: Task,
    batch: Batch,
    plan: RoutingPlan,
    learned: Tensor,
    predict: Callable[[RoutingPlan], Tensor],
) -> tuple[RoutingPlan, bool]:
    """Each row by the learned choice or one expert alone: what has the least loss when all rows have it.

    Where rows lie on pixels of the prediction, the loss of a row is that of its pixels: an oracle for each
    row. Else it is that of the sample: the best of E + 1 plans for each sample.

    Args:
        task: whose loss it is.
        batch: with the truth.
        plan: of one layer.
        learned: the prediction under it.
        predict: the prediction under another plan of that layer.

    Returns:
        The plan, and whether rows were chosen for one by one.
    """
    samples = len(learned)
    by_row = cell_losses(task, learned, batch, plan.grid) is not None

    def losses(prediction: Tensor) -> Tensor:
        cells = cell_losses(task, prediction, batch, plan.grid) if by_row else None
        return (
            sample_losses(task, prediction, batch)[sample_of_rows(plan, samples)] if cells is None else cells
        )

    best, least = plan, losses(learned)
    for expert in range(plan.num_experts):
        other = changed(plan, samples, lambda rows, _, expert=expert: constant(rows, expert))  # type: ignore[misc]
        found = losses(predict(other))
        best = _chosen(found < least, other, best)
        least = torch.minimum(found, least)
    return best, by_row


def _chosen(rows: Tensor, a: RoutingPlan, b: RoutingPlan) -> RoutingPlan:
    """Plan ``a`` where ``rows`` is, ``b`` elsewhere."""
    every = torch.ones_like(b.experts, dtype=torch.bool)
    parts = ((a.experts, b.experts), (a.weights, b.weights), (_or(a.kept, every), _or(b.kept, every)))
    experts, weights, kept = (torch.where(rows[:, None], one, other) for one, other in parts)
    return replace(b, experts=experts, weights=weights, kept=kept, dropped=None)


def _or(kept: Tensor | None, every: Tensor) -> Tensor:
    return every if kept is None else kept
