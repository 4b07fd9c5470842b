"""Plans in the place of the learned one: random, shuffled, of another sample, constant.

A change sees valid rows alone, each with the sample that it is of, and gives a plan for the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from geomoe.moe.plan import RoutingPlan

__all__ = ["Change", "Shuffle", "changed", "constant", "most_used", "sample_of_rows", "several_rows"]

Change = Callable[[RoutingPlan, Tensor], RoutingPlan]
"""Of a plan without rows that are not valid, and the sample of each row, ``[N]`` in ascending order."""


def sample_of_rows(plan: RoutingPlan, samples: int) -> Tensor:
    """``[N]`` int64, the sample of each row; all 0 where rows are of no whole samples."""
    whole = bool(plan.grid) and plan.grid[0] == samples and plan.num_rows % samples == 0
    each = plan.num_rows // samples if whole else max(plan.num_rows, 1)
    return torch.arange(plan.num_rows, device=plan.experts.device) // max(each, 1)


def several_rows(plan: RoutingPlan, samples: int) -> bool:
    """Whether samples have more than one row, so that there is something to shuffle inside one."""
    return plan.num_rows > samples


def changed(plan: RoutingPlan, samples: int, change: Change) -> RoutingPlan:
    """A plan whose valid rows were changed."""
    sample = sample_of_rows(plan, samples)
    if plan.valid is None:
        return change(plan, sample)
    return change(plan.of_valid(), sample[plan.valid]).among(plan.valid, plan.grid)


def most_used(experts: Sequence[int]) -> Change:
    """The same experts for every row, best first, with the weights that the row's own choices had."""
    return lambda plan, sample: replace(
        plan, experts=torch.tensor(experts, device=plan.experts.device).expand(plan.num_rows, -1).contiguous()
    )


def constant(plan: RoutingPlan, expert: int) -> RoutingPlan:
    """Every row by one expert alone, with the sum of the weights that the row's choices had."""
    weights = torch.zeros_like(plan.weights)
    weights[:, 0] = plan.gates.sum(1)
    kept = torch.zeros_like(plan.experts, dtype=torch.bool)
    kept[:, 0] = True if plan.kept is None else plan.kept.any(1)
    return replace(
        plan, experts=torch.full_like(plan.experts, expert), weights=weights, kept=kept, dropped=None
    )


class Shuffle:
    """Changes that draw; the same ones from the same seed.

    Args:
        seed: of what is drawn.
    """

    def __init__(self, seed: int) -> None:
        self._rng = torch.Generator().manual_seed(seed)

    def within(self, plan: RoutingPlan, sample: Tensor) -> RoutingPlan:
        """Each row takes experts and weights of another row of its sample: use stays as it is."""
        drawn = torch.rand(plan.num_rows, generator=self._rng, dtype=torch.float64)
        return plan.spread((sample + drawn.to(sample.device)).argsort(), plan.grid)

    def uniform(self, plan: RoutingPlan, sample: Tensor) -> RoutingPlan:
        """Experts at random, all alike probable, with weights of other rows of the sample."""
        drawn = torch.rand(plan.num_rows, plan.num_experts, generator=self._rng)
        experts = drawn.topk(plan.top_k, 1).indices.to(plan.experts.device)
        return replace(self.within(plan, sample), experts=experts)

    def gates_kept(self, donor: RoutingPlan) -> Change:
        """Each row keeps its weights, and takes the experts of any row of ``donor``, as of :meth:`across`."""
        there = donor.of_valid()

        def change(plan: RoutingPlan, sample: Tensor) -> RoutingPlan:
            rows, others = plan.num_rows, there.num_rows
            drawn = torch.randperm(max(rows, others), generator=self._rng)[:rows] % max(others, 1)
            return replace(plan, experts=there.experts[drawn.to(there.experts.device)])

        return change

    def across(self, donor: RoutingPlan, donors: int) -> Change:
        """Each sample takes the plan of another one, row by row from the same place.

        Args:
            donor: the plan of the same batch, or, for a batch of one, of an earlier one. Where its samples
                are of another size, the nearest place is taken.
            donors: samples in it.
        """
        of = sample_of_rows(donor, donors)
        there = donor.of_valid()
        of = of if donor.valid is None else of[donor.valid]
        order = torch.randperm(donors, generator=self._rng).tolist()
        after = dict(zip(order, [*order[1:], order[0]], strict=True))  # never a sample's own

        def change(plan: RoutingPlan, sample: Tensor) -> RoutingPlan:
            index = torch.zeros_like(sample)
            for one in sample.unique().tolist():
                mine = (sample == one).nonzero().squeeze(1)
                theirs = (of == after[one % donors]).nonzero().squeeze(1)
                if not len(theirs):  # the other sample has no valid row
                    theirs = torch.arange(there.num_rows, device=of.device)
                index[mine] = theirs[_nearest(len(mine), plan.grid[1:], len(theirs), donor.grid[1:])]
            return there.spread(index, plan.grid)

        return change


def _nearest(rows: int, inside: tuple[int, ...], others: int, theirs: tuple[int, ...]) -> Tensor:
    """``[rows]``, of another sample's rows those at the same place; by their order where there is no grid."""
    if len(inside) == len(theirs) == 2 and (inside[0] * inside[1], theirs[0] * theirs[1]) == (rows, others):
        y, x = (torch.arange(n) * m // n for n, m in zip(inside, theirs, strict=True))
        return (y[:, None] * theirs[1] + x).flatten()
    return torch.arange(rows) * others // rows
