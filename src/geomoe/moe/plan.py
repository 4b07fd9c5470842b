"""What a router decided: a plan for one call, and the trace of a whole forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["RoutingPlan", "RoutingTrace"]


@dataclass(frozen=True)
class RoutingPlan:
    """Which experts every row was given, and how much each counts.

    N rows are routed to k of E experts. Rows are the pixels of ``grid`` in row-major order.

    Attributes:
        experts: ``[N, k]`` int64, index of each chosen expert in ``0..E-1``, best first.
        weights: ``[N, k]`` the factor that multiplies each chosen expert's result.
        probabilities: ``[N, E]`` float32, the router's belief; every row sums to 1.
        logits: ``[N, E]`` float32, such that ``softmax(logits) == probabilities``.
        group_sizes: experts in each group; ``(E,)`` where there are no groups.
        grid: ``(B, H, W)`` that the rows came from.
    """

    experts: Tensor
    weights: Tensor
    probabilities: Tensor
    logits: Tensor
    group_sizes: tuple[int, ...]
    grid: tuple[int, int, int]

    @property
    def num_experts(self) -> int:
        return sum(self.group_sizes)

    @cached_property
    def groups(self) -> Tensor:
        """``[N, k]`` int64, the group (0-based) of each chosen expert."""
        ends = torch.tensor(self.group_sizes, device=self.experts.device).cumsum(0)
        return torch.bucketize(self.experts, ends, right=True)

    @cached_property
    def members(self) -> Tensor:
        """``[N, k]`` int64, the place (0-based) of each chosen expert inside its group."""
        sizes = torch.tensor(self.group_sizes, device=self.experts.device)
        return self.experts - (sizes.cumsum(0) - sizes)[self.groups]

    @cached_property
    def confidence(self) -> Tensor:
        """``[N]`` float32, probability of the first choice, in (0, 1]."""
        return self.probabilities.gather(1, self.experts[:, :1]).squeeze(1)


@dataclass
class RoutingTrace:
    """The plans of one forward pass, in the order in which the layers ran.

    Example:
        >>> trace = RoutingTrace()
        >>> sr = model(x, trace=trace)          # doctest: +SKIP
        >>> trace[-1].experts.shape             # doctest: +SKIP
    """

    plans: list[RoutingPlan] = field(default_factory=list)

    def append(self, plan: RoutingPlan) -> None:
        self.plans.append(plan)

    def __getitem__(self, index: int) -> RoutingPlan:
        return self.plans[index]

    def __iter__(self) -> Iterator[RoutingPlan]:
        return iter(self.plans)

    def __len__(self) -> int:
        return len(self.plans)
