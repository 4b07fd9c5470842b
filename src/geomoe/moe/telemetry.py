"""Telemetry: what the routing did, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from geomoe.moe.plan import RoutingPlan
from geomoe.moe.sort import count_choices

__all__ = ["RoutingHealth", "agreement", "gini", "importance", "load", "routing_health"]


def load(plan: RoutingPlan, asked: bool = False) -> Tensor:
    """``[E]`` share of all choices that fell on each expert; sums to 1.

    Args:
        plan: the plan.
        asked: count choices before any capacity, too.
    """
    counts = count_choices(plan, asked)
    return counts.float() / counts.sum().clamp_min(1)


def importance(plan: RoutingPlan) -> Tensor:
    """``[E]`` sum over rows of each expert's gate (Shazeer et al. 2017, equation 6)."""
    return plan.gates.sum(0)


def gini(share: Tensor) -> Tensor:
    """Gini coefficient of ``[E]`` shares: 0 at even use, ``1 - 1/E`` when one expert takes all."""
    ordered = share.sort().values
    total = ordered.sum().clamp_min(torch.finfo(share.dtype).tiny)
    place = torch.arange(1, len(share) + 1, device=share.device, dtype=share.dtype)
    return (2 * (place * ordered).sum() / (len(share) * total)) - (len(share) + 1) / len(share)


def agreement(a: RoutingPlan, b: RoutingPlan) -> float:
    """How far two plans choose alike: mean over valid rows of the Jaccard index of their sets of experts.

    1 without such rows.

    Raises:
        ValueError: plans for other rows or another number of experts.
    """
    if (a.num_rows, a.num_experts) != (b.num_rows, b.num_experts):
        raise ValueError(
            f"plans for {a.num_rows} rows of {a.num_experts} experts and {b.num_rows} of {b.num_experts}"
        )
    in_a, in_b = _chosen(a), _chosen(b)  # [N, E]
    either = (in_a | in_b).sum(1)
    both = (in_a & in_b).sum(1)
    alike = torch.where(either > 0, both.float() / either.clamp_min(1), 1.0)
    valid = [plan.valid for plan in (a, b) if plan.valid is not None]
    alike = alike[torch.stack(valid).all(0)] if valid else alike
    return float(alike.mean()) if len(alike) else 1.0


def _chosen(plan: RoutingPlan) -> Tensor:
    kept = torch.ones_like(plan.experts) if plan.kept is None else plan.kept.long()
    return kept.new_zeros(plan.num_rows, plan.num_experts).scatter_add(1, plan.experts, kept).bool()


@dataclass(frozen=True)
class RoutingHealth:
    """A plan in figures.

    Attributes:
        rows: choices that fell on each expert and were carried out.
        load: the same as shares; sums to 1.
        importance: sum of each expert's gates, as shares; sums to 1.
        load_entropy: entropy of ``load`` over ``ln E``, in [0, 1]; 1 is even use.
        marginal_entropy: entropy of the mean probabilities over ``ln E``; the difference to ``row_entropy``
            is what rows and experts know of each other.
        row_entropy: mean entropy of a row's probabilities over ``ln E``; 0 is certainty.
        gini: of ``load``; 0 is even use.
        dead: experts that no row chose.
        dropped: share of the choices asked for that found their expert full.
        experts_per_row: choices carried out for a row, on average.
        confidence: mean over rows of the largest probability.
    """

    rows: tuple[int, ...]
    load: tuple[float, ...]
    importance: tuple[float, ...]
    load_entropy: float
    marginal_entropy: float
    row_entropy: float
    gini: float
    dead: int
    dropped: float
    experts_per_row: float
    confidence: float


def routing_health(plan: RoutingPlan) -> RoutingHealth:
    """Figures of a plan's valid rows. With a single expert use is even and rows are certain by definition."""
    plan = plan.of_valid()
    counts = count_choices(plan)
    share = load(plan)
    p = plan.probabilities.detach()
    gates = importance(plan).detach()
    marginal = p.sum(0) / max(plan.num_rows, 1)
    dropped = 0 if plan.dropped is None else int(plan.dropped.sum())
    most = math.log(plan.num_experts)

    def entropy(distribution: Tensor, alone: float) -> float:
        if plan.num_experts == 1 or not plan.num_rows:
            return alone
        return float(torch.special.entr(distribution).sum(-1).mean() / most)

    return RoutingHealth(
        rows=tuple(counts.tolist()),
        load=tuple(share.tolist()),
        importance=tuple((gates / gates.sum().clamp_min(1e-12)).tolist()),
        load_entropy=entropy(share, 1.0),
        marginal_entropy=entropy(marginal, 1.0),
        row_entropy=entropy(p, 0.0),
        gini=float(gini(share)),
        dead=int((counts == 0).sum()),
        dropped=dropped / max(dropped + int(counts.sum()), 1),
        experts_per_row=float(counts.sum()) / max(plan.num_rows, 1),
        confidence=float(p.amax(1).mean()) if plan.num_rows else 0.0,
    )
