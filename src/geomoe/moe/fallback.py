"""Fallback: rows unlike anything that the router has seen go the safe way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from geomoe.moe.plan import RoutingPlan
from geomoe.moe.router import AnyRouter

__all__ = ["Fallback", "energy", "uncertainty"]


def energy(plan: RoutingPlan) -> Tensor:
    """``[N]`` ``-logsumexp`` of the logits: high where no expert wants the row."""
    return -plan.logits.logsumexp(-1)


def uncertainty(plan: RoutingPlan) -> Tensor:
    """``[N]`` one minus the largest probability."""
    return 1 - plan.probabilities.amax(-1)


class Fallback(AnyRouter):
    """A router whose rows fall back where its score lies beyond a quantile of what it saw in training.

    Args:
        router: the router.
        quantile: q; about ``1 - q`` of rows like those of :meth:`fit` fall back.
        answer: ``shared`` carries out none of the row's choices, so that a layer's shared expert (or
            residual) alone answers; ``mean`` gives it every expert in equal parts.
        score: what is compared, high where the row is strange.
    """

    threshold: Tensor

    def __init__(
        self,
        router: AnyRouter,
        quantile: float = 0.99,
        answer: Literal["shared", "mean"] = "shared",
        score: Callable[[RoutingPlan], Tensor] = energy,
    ) -> None:
        super().__init__()
        if not 0 < quantile < 1:
            raise ValueError(f"quantile={quantile}: expected above 0 and below 1")
        self.router, self.quantile, self.answer, self.score = router, quantile, answer, score
        self.register_buffer("threshold", torch.tensor(float("inf")))

    @property
    def group_sizes(self) -> tuple[int, ...]:
        return self.router.group_sizes

    @property
    def row_independent(self) -> bool:
        return self.router.row_independent

    @torch.no_grad()
    def fit(self, plan: RoutingPlan) -> None:
        """Set the threshold by a plan for rows like those of training, but not those that were fitted."""
        scores = self.score(plan)
        place = min(int(self.quantile * len(scores)), len(scores) - 1)
        self.threshold.fill_(scores.sort().values[place])

    def forward(
        self, rows: Tensor, grid: tuple[int, ...] | None = None, context: Tensor | None = None
    ) -> RoutingPlan:
        """The router's plan, with strange rows sent the safe way."""
        plan: RoutingPlan = self.router(rows, grid, context)
        strange = (self.score(plan) > self.threshold)[:, None]  # [N, 1]
        kept = torch.ones_like(plan.experts, dtype=torch.bool) if plan.kept is None else plan.kept
        if self.answer == "shared":
            return replace(plan, kept=kept & ~strange, weights=plan.weights.masked_fill(strange, 0))
        experts = torch.arange(plan.num_experts, device=rows.device).expand(plan.num_rows, -1)
        even = plan.weights.new_full(experts.shape, 1 / plan.num_experts)
        return replace(
            plan,
            experts=torch.cat([plan.experts, experts], 1),
            weights=torch.cat([plan.weights, even], 1),
            kept=torch.cat([kept & ~strange, strange.expand(experts.shape)], 1),
        )
