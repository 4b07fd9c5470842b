"""Routers: signals in, a RoutingPlan out. A router is a score, a choice, and what stands between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geomoe.moe.adjust import Noise, Preference
from geomoe.moe.capacity import Capacity
from geomoe.moe.choice import Choice, TopK
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.score import Score

__all__ = ["AnyRouter", "Router"]


class AnyRouter(nn.Module):
    """Base of whatever makes plans: :class:`Router`, and what stands around one."""

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Experts in each group; ``(E,)`` where there are no groups."""
        raise NotImplementedError

    @property
    def num_experts(self) -> int:
        return sum(self.group_sizes)

    @property
    def row_independent(self) -> bool:
        """Whether, in evaluation, a row's plan depends on that row alone.

        Else a scene depends on its tiles.
        """
        return True

    def forward(
        self, rows: Tensor, grid: tuple[int, ...] | None = None, context: Tensor | None = None
    ) -> RoutingPlan:
        """The plan for ``rows``, as :meth:`Router.forward`."""
        raise NotImplementedError


class Router(AnyRouter):
    """Scores the experts for every row and chooses among them.

    In this order: the score's logits; noise; ``adjust``, each of which changes the belief; ``prefer``, each
    of which changes the choice alone; the choice; capacity. All of it in float32, whatever the precision of
    the signals.

    Args:
        score: what the router thinks of every expert.
        choice: which of them a row is given; :class:`geomoe.moe.choice.TopK` of 1 by default.
        noise: on the logits, while training.
        adjust: modules on the logits ``[N, E]``, such as temperature and expert dropout.
        prefer: modules on what is chosen by, such as a bias that balances.
        capacity: places of the experts; None for no limit.

    Raises:
        ValueError: more experts wanted than there are.

    Example:
        >>> router = Router(LinearScore(16, 8), TopK(2, "normalised"))      # doctest: +SKIP
        >>> plan = router(torch.randn(100, 16))                             # doctest: +SKIP
    """

    def __init__(
        self,
        score: Score,
        choice: Choice | None = None,
        *,
        noise: Noise | None = None,
        adjust: Sequence[nn.Module] = (),
        prefer: Sequence[Preference] = (),
        capacity: Capacity | None = None,
    ) -> None:
        super().__init__()
        self.score = score
        self.choice = TopK() if choice is None else choice
        self.noise = noise
        self.adjust = nn.ModuleList(adjust)
        self.prefer = nn.ModuleList(prefer)
        self.capacity = capacity
        wanted = getattr(self.choice, "k", 1)
        if wanted > score.num_experts:
            raise ValueError(f"top_k={wanted}: there are {score.num_experts} experts")

    @property
    def group_sizes(self) -> tuple[int, ...]:
        return self.score.group_sizes

    @property
    def row_independent(self) -> bool:
        limited = self.capacity is not None and self.capacity.evaluation_factor is not None
        return self.choice.row_independent and not limited

    def forward(
        self, rows: Tensor, grid: tuple[int, ...] | None = None, context: Tensor | None = None
    ) -> RoutingPlan:
        """The plan for ``rows``.

        Args:
            rows: ``[N, C]`` signals, or whatever the score takes.
            grid: the shape that the rows came from; ``(N,)`` if not given.
            context: ``[N, D]`` for a score that is conditioned.
        """
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.float() if rows.is_floating_point() else rows
            clean = logits = self.score(rows, context)  # [N, E]
            std = None
            if self.noise is not None and self.training:
                std = self.noise(rows)
                logits = logits + torch.randn_like(std) * std
            for adjust in self.adjust:
                logits = adjust(logits)
            preference = logits
            for prefer in self.prefer:
                preference = prefer(preference)
            experts, weights, probabilities, kept = self.choice(logits, preference)
            if self.capacity is not None:
                kept = self.capacity.keep(experts, weights, kept, self.num_experts, self.training)
        return RoutingPlan(
            experts,
            weights,
            probabilities,
            logits,
            self.group_sizes,
            (rows.shape[0],) if grid is None else grid,
            kept,
            None if std is None else clean,
            std,
        )

    def rebalance(self, plan: RoutingPlan, rate: float) -> None:
        """Move the biases of ``prefer`` towards even load, once a plan, after the optimiser's step."""
        for prefer in self.prefer:
            assert isinstance(prefer, Preference)
            prefer.update(plan, rate)
