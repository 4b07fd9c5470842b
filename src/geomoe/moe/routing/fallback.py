"""Fallback: rows unlike anything that the router has seen go the safe way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from geomoe.moe.plan import RoutingPlan
from geomoe.moe.routing.router import AnyRouter

__all__ = ["Fallback", "mahalanobis", "usual"]

Answer = Literal["shared", "mean"]


def mahalanobis(rows: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """``[N]`` squared Mahalanobis distance of rows ``[N, C]`` to ``mean`` ``[C]``; precision ``[C, C]``."""
    apart = rows - mean
    return ((apart @ precision) * apart).sum(-1)


def usual(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[C]`` and precision ``[C, C]`` of rows ``[N, C]``, a thousandth of their spread added."""
    covariance = torch.cov(rows.T, correction=0).view(rows.shape[1], -1)
    spread = covariance.diagonal().mean().clamp_min(1e-12)
    shrunk = covariance + 1e-3 * spread * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    return rows.mean(0), torch.linalg.inv(shrunk)


class Fallback(AnyRouter):
    """A router whose rows fall back where they lie farther out than nearly all that it saw in training.

    What is compared is the Mahalanobis distance of a row to the mean of the training rows (after Lee et al.
    2018). A router's own
    probabilities would not do: far from its training a router is most often certain.

    Args:
        router: the router.
        channels: width of its rows.
        quantile: q; about ``1 - q`` of rows like those of :meth:`fit` fall back.
        answer: ``shared`` carries out none of the row's choices, so that a layer's shared expert (or
            residual) alone answers; ``mean`` gives it every expert in equal parts.
    """

    mean: Tensor
    precision: Tensor
    threshold: Tensor

    def __init__(
        self, router: AnyRouter, channels: int, quantile: float = 0.99, answer: Answer = "shared"
    ) -> None:
        super().__init__()
        if not 0 < quantile < 1:
            raise ValueError(f"quantile={quantile}: expected above 0 and below 1")
        if answer not in get_args(Answer):
            raise ValueError(f"answer={answer!r}: expected one of {', '.join(get_args(Answer))}")
        self.router, self.quantile, self.answer = router, quantile, answer
        self.register_buffer("mean", torch.zeros(channels, dtype=torch.float32))
        self.register_buffer("precision", torch.eye(channels, dtype=torch.float32))
        self.register_buffer("threshold", torch.tensor(float("inf"), dtype=torch.float32))

    @property
    def group_sizes(self) -> tuple[int, ...]:
        return self.router.group_sizes

    @property
    def row_independent(self) -> bool:
        return self.router.row_independent

    def rebalance(self, plan: RoutingPlan | Sequence[RoutingPlan], rate: float) -> None:
        self.router.rebalance(plan, rate)

    def distance(self, rows: Tensor) -> Tensor:
        """``[N]`` float32, squared Mahalanobis distance of rows ``[N, C]``, whatever autocast asks for."""
        with torch.autocast(rows.device.type, enabled=False):
            return mahalanobis(rows.float(), self.mean, self.precision)

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Learn what is usual from rows ``[N, C]`` like those of training; nothing falls back before."""
        rows = rows.float()
        mean, precision = usual(rows)
        self.mean.copy_(mean)
        self.precision.copy_(precision)
        place = min(int(self.quantile * len(rows)), len(rows) - 1)
        self.threshold.fill_(self.distance(rows).sort().values[place])

    def forward(
        self,
        rows: Tensor,
        grid: tuple[int, ...] | None = None,
        context: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> RoutingPlan:
        """The router's plan, with unusual rows sent to the fallback."""
        plan: RoutingPlan = self.router(rows, grid, context, valid)
        unusual = self.distance(rows) > self.threshold
        unusual = (unusual if valid is None else unusual & valid)[:, None]  # [N, 1]
        kept = torch.ones_like(plan.experts, dtype=torch.bool) if plan.kept is None else plan.kept
        if self.answer == "shared":
            return replace(plan, kept=kept & ~unusual, weights=plan.weights.masked_fill(unusual, 0))
        experts = torch.arange(plan.num_experts, device=rows.device).expand(plan.num_rows, -1)
        even = plan.weights.new_full(experts.shape, 1 / plan.num_experts)
        none = torch.zeros_like(experts, dtype=torch.bool)
        return replace(
            plan,
            experts=torch.cat([plan.experts, experts], 1),
            weights=torch.cat([plan.weights, even], 1),
            kept=torch.cat([kept & ~unusual, unusual.expand(experts.shape)], 1),
            dropped=None if plan.dropped is None else torch.cat([plan.dropped, none], 1),
        )
