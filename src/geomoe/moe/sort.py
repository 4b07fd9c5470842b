"""A plan's choices, sorted by expert: what every sparse back end starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geomoe.moe.plan import RoutingPlan

__all__ = ["SortedChoices", "count_choices", "sort_choices"]


def count_choices(plan: RoutingPlan, asked: bool = False) -> Tensor:
    """``[E]`` int64, choices that fell on each expert and are carried out.

    Args:
        plan: the plan.
        asked: count those too that found their expert full: what the router wanted, before any capacity.
    """
    kept = plan.kept
    if asked and kept is not None and plan.dropped is not None:
        kept = kept | plan.dropped
    chosen = plan.experts.flatten() if kept is None else plan.experts[kept]
    return torch.bincount(chosen, minlength=plan.num_experts)


@dataclass(frozen=True)
class SortedChoices:
    """The choices of a plan that are carried out, expert by expert.

    Attributes:
        rows: ``[m]`` int64, the row of each choice; ascending inside an expert, so that neighbours in an
            image stay near each other in memory.
        counts: choices of each expert; sums to m.
        weights: ``[m]`` weight of each choice.
        places: ``[m]`` int64, the place of each choice in the flattened ``[N * k]`` plan.
    """

    rows: Tensor
    counts: tuple[int, ...]
    weights: Tensor
    places: Tensor


def sort_choices(plan: RoutingPlan) -> SortedChoices:
    """Sort the choices by expert; those that are not kept are left out."""
    experts = plan.experts.flatten()
    if plan.kept is not None:
        experts = torch.where(plan.kept.flatten(), experts, plan.num_experts)
    # A sort of 16 bit is a counting sort, several times faster than one of 64.
    narrow = torch.int16 if plan.num_experts <= torch.iinfo(torch.int16).max else torch.int64
    places = experts.to(narrow).argsort(stable=True)
    counts = torch.bincount(experts, minlength=plan.num_experts + 1).tolist()
    if len(counts) > plan.num_experts + 1 or (plan.kept is None and counts[-1]):
        raise ValueError(f"the plan chooses expert {len(counts) - 1}, there are {plan.num_experts}")
    counts.pop()
    if plan.kept is not None:
        places = places[: sum(counts)]
    return SortedChoices(places // plan.top_k, tuple(counts), plan.weights.flatten()[places], places)
