"""Combine: the results of sorted choices brought back to their rows, weighed and added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geomoe.moe.blocks import without_autocast
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
    return out.view(plan.num_rows, *results.shape[1:])


class _Combine(torch.autograd.Function):
    @staticmethod
    @without_autocast
    def forward(ctx: Any, results: Tensor, weights: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(results, weights, rows, places)
        out = results.new_empty(len(weights), results.shape[1])
        if not len(places):
            return out.zero_()
        where = places.new_full((weights.numel(),), -1)
        where[places] = torch.arange(len(places), device=places.device)
        where = where.view(weights.shape)
        dropped = where < 0 if len(places) < weights.numel() else None
        where.clamp_(min=0)
        for a, b in _chunks(out):
            for k in range(weights.shape[1]):
                term = results.index_select(0, where[a:b, k]).mul_(weights[a:b, k, None])
                if dropped is not None:
                    term.masked_fill_(dropped[a:b, k, None], 0)
                if k == 0:
                    out[a:b] = term
                else:
                    out[a:b] += term
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        results, weights, rows, places = ctx.saved_tensors
        need_results, need_weights = ctx.needs_input_grad[:2]
        grad = grad.contiguous()
        sorted_weights = weights.flatten()[places]
        grad_results = torch.empty_like(results) if need_results else None
        products = results.new_empty(len(results)) if need_weights else None
        for a, b in _chunks(results):
            fetched = grad.index_select(0, rows[a:b])
            if products is not None:
                torch.linalg.vecdot(fetched, results[a:b], out=products[a:b])
            if grad_results is not None:
                torch.mul(fetched, sorted_weights[a:b, None], out=grad_results[a:b])
        grad_weights = None
        if products is not None:
            grad_weights = weights.new_zeros(weights.shape)
            grad_weights.view(-1)[places] = products
        return grad_results, grad_weights, None, None


def _chunks(like: Tensor) -> Iterator[tuple[int, int]]:
    most = max(_CACHE // max(like.shape[1], 1), 1)
    return ((a, min(a + most, len(like))) for a in range(0, len(like), most))
