"""Telemetry: what the routing did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geomoe.moe.plan import RoutingPlan

__all__ = ["RoutingHealth", "load", "routing_health"]


def load(plan: RoutingPlan) -> Tensor:
    """``[E]`` share of all choices that fell on each expert; sums to 1."""
    counts = torch.bincount(plan.experts.flatten(), minlength=plan.num_experts)
    return counts / plan.experts.numel()


@dataclass(frozen=True)
class RoutingHealth:
    """A plan in five figures.

    Attributes:
        load: share of choices of each expert; sums to 1.
        load_entropy: entropy of ``load`` over ``ln E``, in [0, 1]; 1 is even use.
        row_entropy: mean entropy of a row's probabilities over ``ln E``; 0 is certainty.
        dead: experts that no row chose.
        confidence: mean probability of the first choice.
    """

    load: tuple[float, ...]
    load_entropy: float
    row_entropy: float
    dead: int
    confidence: float


def routing_health(plan: RoutingPlan) -> RoutingHealth:
    """Figures of one plan. With a single expert both entropies are 1 and 0 by definition."""
    share = load(plan)
    p = plan.probabilities.detach()
    most = torch.log(torch.tensor(float(plan.num_experts), device=p.device))
    return RoutingHealth(
        load=tuple(share.tolist()),
        load_entropy=float(torch.special.entr(share).sum() / most) if plan.num_experts > 1 else 1.0,
        row_entropy=float(torch.special.entr(p).sum(-1).mean() / most) if plan.num_experts > 1 else 0.0,
        dead=int((share == 0).sum()),
        confidence=float(plan.confidence.detach().mean()),
    )
