"""Dispatch and combine: a plan carried out on a bank."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geomoe.moe.experts import HeterogeneousBank
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.units import Neighbourhoods, rows_to_pixels

__all__ = ["Backend", "dispatch"]

Backend = Literal["loop", "dense"]

_CHUNK = 16384
"""Rows gathered at a time: bounds the memory of the neighbourhoods, whatever the image."""


def dispatch(bank: HeterogeneousBank, x: Tensor, plan: RoutingPlan, backend: Backend = "loop") -> Tensor:
    """The weighted sum of each pixel's chosen experts.

    Args:
        bank: the experts.
        x: ``[B, C, H, W]`` features.
        plan: made for the ``B * H * W`` pixels of ``x``.
        backend: ``loop`` sorts the pixels by expert, and each pays for its own experts alone;
            ``dense`` runs every expert on every pixel, and is the reference for tests. Same numbers.

    Returns:
        ``[B, C_out, H, W]``. A pixel's result does not depend on how other pixels were routed.
    """
    if x.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    around = Neighbourhoods(x, bank.reach)
    weights = plan.weights.to(around.flat.dtype)
    run = _dense if backend == "dense" else _loop
    return rows_to_pixels(run(bank, around, plan, weights), plan.grid)


def _loop(bank: HeterogeneousBank, around: Neighbourhoods, plan: RoutingPlan, weights: Tensor) -> Tensor:
    k = plan.experts.shape[1]
    order = plan.experts.flatten().argsort(stable=True)  # (row, choice) pairs, sorted by expert
    counts = torch.bincount(plan.experts.flatten(), minlength=plan.num_experts).tolist()
    results: list[Tensor] = []
    start = expert = 0
    for group in bank:
        for member in range(group.num_experts):
            for chunk in torch.split(order[start : start + counts[expert]], _CHUNK):
                results.append(group.expert(member, around.gather(chunk // k, group.kernel_size)))
            start += counts[expert]
            expert += 1
    sorted_results = torch.cat(results)  # [N * k, C_out]
    # Undoing the sort by a gather keeps the combine free of atomic adds, so it is deterministic.
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    chosen = sorted_results[inverse].view(-1, k, bank.out_channels)
    return (chosen * weights[:, :, None]).sum(1) if k > 1 else chosen[:, 0] * weights


def _dense(bank: HeterogeneousBank, around: Neighbourhoods, plan: RoutingPlan, weights: Tensor) -> Tensor:
    rows = torch.arange(len(plan.experts), device=plan.experts.device)
    mix = weights.new_zeros(len(rows), plan.num_experts).scatter(1, plan.experts, weights)  # [N, E]
    results = [
        group.expert(member, around.gather(rows, group.kernel_size))
        for group in bank
        for member in range(group.num_experts)
    ]
    return (torch.stack(results, 1) * mix[:, :, None]).sum(1)
