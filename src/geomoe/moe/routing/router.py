"""Routers: signals in, a RoutingPlan out; gate logits, their transforms, and the selection of experts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from geomoe.moe.plan import NoisyLogits, RoutingPlan
from geomoe.moe.routing.adjust import FixedNoise, Noise, Preference
from geomoe.moe.routing.capacity import Capacity
from geomoe.moe.routing.choice import Choice, TopK
from geomoe.moe.routing.score import Score
from geomoe.moe.valid import check_valid

__all__ = ["AnyRouter", "Router"]


class AnyRouter(nn.Module):
    """Base of whatever makes plans: :class:`Router`, and what wraps one."""

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Experts in each group; ``(E,)`` where there are no groups."""
        raise NotImplementedError(f"{type(self).__name__} must define group_sizes")

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
        self,
        rows: Tensor,
        grid: tuple[int, ...] | None = None,
        context: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> RoutingPlan:
        """The plan for ``rows``, as :meth:`Router.forward`."""
        raise NotImplementedError(f"{type(self).__name__} must define forward and group_sizes")

    def rebalance(self, plan: RoutingPlan | Sequence[RoutingPlan], rate: float) -> None:
        """Learn even use from a plan that was carried out, if there is something that does."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Gates stay in single precision when a model is made half: a choice must not turn on rounding.
        def at_least_single(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            half = (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if moved.dtype in half and tensor.dtype not in half else moved

        return super()._apply(at_least_single, recurse)  # type: ignore[no-any-return,no-untyped-call]


class Router(AnyRouter):
    """Gives every row gate logits over experts and selects among them.

    In this order: the score's logits; noise; ``adjust``, logit transforms that change gates and selection;
    ``prefer``, selection biases that change the selection alone; the choice; capacity. All of it in float32,
    whatever the precision of the signals.

    Args:
        score: gives the gate logits.
        choice: selects experts by them; :class:`geomoe.moe.routing.choice.TopK` of 1 by default.
        noise: on the logits, while training.
        adjust: logit transforms, modules on ``[N, E]`` such as temperature and expert dropout.
        prefer: selection biases, such as one that evens the load.
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
        noise: Noise | FixedNoise | None = None,
        adjust: Sequence[nn.Module] = (),
        prefer: Sequence[Preference] = (),
        capacity: Capacity | None = None,
    ) -> None:
        super().__init__()
        self.score = score
        self.choice = TopK() if choice is None else choice
        self.noise = noise
        for name, parts in (("adjust", adjust), ("prefer", prefer)):
            if isinstance(parts, nn.Module):
                raise ValueError(f"{name}: expected a list, [{type(parts).__name__}(...)]")
        self.adjust = nn.ModuleList(adjust)
        self.prefer = nn.ModuleList(prefer)
        self.capacity = capacity
        for part in prefer:
            if not isinstance(part, Preference):
                raise ValueError(f"prefer: {type(part).__name__} changes the belief, and belongs to adjust")
        for module in adjust:
            if isinstance(module, Preference):
                raise ValueError(f"adjust: {type(module).__name__} moves the choice, and belongs to prefer")
        wanted = max(getattr(self.choice, "k", 1), *getattr(self.choice, "ks", (1,)))
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
        self,
        rows: Tensor,
        grid: tuple[int, ...] | None = None,
        context: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> RoutingPlan:
        """The plan for ``rows``.

        Args:
            rows: ``[N, C]`` signals; ids ``[N]`` for a hash.
            grid: the shape that the rows came from; ``(N,)`` if not given.
            context: ``[N, D]`` for a score that is conditioned.
            valid: ``[N]`` bool, rows that there are; the others are given no expert, and those that there are
                are routed as if they were alone.

        Raises:
            ValueError: rows, grid, context or valid of another shape; a context that the score makes no use
                of.
        """
        grid = (rows.shape[0],) if grid is None else grid
        self._check(rows, grid, context, valid)
        sample = None
        if self.capacity is not None and self.capacity.per_sample:
            sample = torch.arange(rows.shape[0], device=rows.device) // max(math.prod(grid[1:]), 1)
        if valid is None:
            return self._plan(rows, grid, context, sample)
        context, sample = (None if x is None else x[valid] for x in (context, sample))
        return self._plan(rows[valid], (int(valid.sum()),), context, sample).among(valid, grid)

    def _plan(
        self, rows: Tensor, grid: tuple[int, ...], context: Tensor | None, sample: Tensor | None
    ) -> RoutingPlan:
        with torch.autocast(rows.device.type, enabled=False):
            if rows.dtype in (torch.float16, torch.bfloat16):
                rows = rows.float()
            logits = self.score(rows, context)  # [N, E]
            if logits.shape != (rows.shape[0], self.num_experts):
                raise ValueError(
                    f"{type(self.score).__name__} gave logits {list(logits.shape)} "
                    f"for {rows.shape[0]} rows and {self.num_experts} experts"
                )
            noise = None
            if self.noise is not None and self.training:
                clean, std = logits, self.noise(rows, logits)
                logits = clean + torch.randn_like(std) * std
                noise = NoisyLogits(clean, std, logits)
            for adjust in self.adjust:
                logits = adjust(logits)
            preference = logits
            for prefer in self.prefer:
                preference = prefer(preference)
            experts, weights, probabilities, kept = self.choice(logits, preference)
            dropped = None
            if self.capacity is not None:
                asked, training = kept, self.training
                # A choice of k gave every row as many as there are columns; its k may be evaluation's.
                k = experts.shape[1] if hasattr(self.choice, "k") else None
                kept = self.capacity.keep(
                    experts, probabilities, asked, self.num_experts, training, k, sample
                )
                if kept is not None and kept is not asked:
                    dropped = ~kept if asked is None else asked & ~kept
        return RoutingPlan(
            experts, weights, probabilities, logits, self.group_sizes, grid, kept, dropped, noise
        )

    def _check(
        self, rows: Tensor, grid: tuple[int, ...], context: Tensor | None, valid: Tensor | None
    ) -> None:
        if valid is not None:
            check_valid(valid, rows.shape[0])
        if not self.score.takes_ids and (rows.dim() != 2 or not rows.is_floating_point()):
            raise ValueError(
                f"a router takes rows [N, C] of floating point, not {list(rows.shape)} of {rows.dtype}; "
                "units such as Tokens and Pixels make rows of tensors"
            )
        if math.prod(grid) != rows.shape[0]:
            raise ValueError(f"grid {tuple(grid)} does not hold {rows.shape[0]} rows")
        if context is not None and not self.score.takes_context:
            raise ValueError(f"{type(self.score).__name__} makes no use of a context; see ConditionedScore")
        if context is not None and (context.dim() != 2 or context.shape[0] != rows.shape[0]):
            raise ValueError(
                f"context {list(context.shape)} for {rows.shape[0]} rows: expected [N, D]; "
                "a unit's repeat() gives a sample's to each of its rows"
            )

    def rebalance(self, plan: RoutingPlan | Sequence[RoutingPlan], rate: float) -> None:
        """Move the biases of ``prefer`` towards even load, once after each step of the optimiser.

        Args:
            plan: that was carried out; all of them where gradients were accumulated over several.
            rate: how far.
        """
        plans = [plan] if isinstance(plan, RoutingPlan) else plan
        for prefer in self.prefer:
            assert isinstance(prefer, Preference)
            prefer.update(plans, rate)
