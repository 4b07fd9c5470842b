"""Combine: the results of sorted choices brought back to their rows, weighed and added."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.moe.kernels.blocks import once_differentiable, without_autocast
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.sort import SortedChoices

__all__ = ["combine"]

_CACHE = 1 << 18
"""Elements of results at a time (1 MB of float32)."""


def combine(results: Tensor, choices: SortedChoices, plan: RoutingPlan) -> Tensor:
    """``[N, ...]``: for each row the sum of weight times result over its kept choices, in their order.

    Rows fetch their results, so that nothing is added to one place by two hands: the same plan gives the
    same bits.

    Args:
        results: ``[m, ...]`` of the sorted choices.
        choices: their order.
        plan: whose weights count.
    """
    weights = plan.weights.to(results.dtype)
    out: Tensor = _Combine.apply(results.flatten(1), weights, choices.rows, choices.places)  # type: ignore[no-untyped-call]
    # As it is where that will do: fully_shard warns of a layer that gives a view.
    return out if results.dim() == 2 else out.view(plan.num_rows, *results.shape[1:])


class _Combine(torch.autograd.Function):
    @staticmethod
    @without_autocast
    def forward(ctx: Any, results: Tensor, weights: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(results, weights, rows, places)
        if not len(places):
            return results.new_zeros(len(weights), results.shape[1])
        number = torch.arange(len(places), device=places.device)
        where = places.new_full((weights.numel(),), -1)
        where[places] = number
        each = weights.shape[1]
        if len(places) == weights.numel():
            bags = torch.arange(0, len(where), each, device=places.device)
            factors = weights.flatten()
        else:
            kept = where >= 0
            bags = (kept.cumsum(0) - kept.long())[::each]
            where, factors = where[kept], weights.flatten()[kept]
        return F.embedding_bag(where, results, bags, mode="sum", per_sample_weights=factors)

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        results, weights, rows, places = ctx.saved_tensors
        need_results, need_weights = ctx.needs_input_grad[:2]
        grad = grad.contiguous()
        grad_results = grad_weights = None
        if need_results:
            factors, number = weights.flatten()[places], torch.arange(len(rows), device=rows.device)
            grad_results = F.embedding_bag(rows, grad, number, mode="sum", per_sample_weights=factors)
        if need_weights:
            products = results.new_empty(len(results))
            most = max(_CACHE // max(results.shape[1], 1), 1)
            for a in range(0, len(results), most):
                fetched = grad.index_select(0, rows[a : a + most])
                torch.sum(fetched.mul_(results[a : a + most]), 1, out=products[a : a + most])
            grad_weights = weights.new_zeros(weights.shape)  # contiguous, whatever the weights are
            grad_weights.view(-1)[places] = products
        return grad_results, grad_weights, None, None
