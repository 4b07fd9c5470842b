"""Pruning: the experts that a modality uses, and no others (MAPEX, Hanna et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from geomoe.moe.bank import ExpertBank
from geomoe.moe.experts import FeedForwardExperts
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.router import AnyRouter
from geomoe.moe.sort import count_choices

__all__ = ["PrunedRouter", "prune", "used_experts"]


def used_experts(plans: Iterable[RoutingPlan], keep: int) -> tuple[int, ...]:
    """The ``keep`` experts that most choices of one modality's plans fell on, ascending."""
    total = torch.stack([count_choices(plan) for plan in plans]).sum(0)
    return tuple(sorted(total.argsort(descending=True, stable=True)[:keep].tolist()))


class PrunedRouter(AnyRouter):
    """A router some of whose experts are gone. The others keep their numbers' order, and their weights.

    The whole router decides as before; choices of experts that are gone are not carried out. So a row whose
    experts are all kept gets exactly what it got.

    Args:
        router: the whole router.
        keep: experts that remain.
    """

    renumber: Tensor

    def __init__(self, router: AnyRouter, keep: Sequence[int]) -> None:
        super().__init__()
        if not keep or sorted(set(keep)) != list(keep) or keep[0] < 0 or keep[-1] >= router.num_experts:
            raise ValueError(f"keep={tuple(keep)}: expected ascending experts below {router.num_experts}")
        self.router, self.keep = router, tuple(keep)
        renumber = torch.full((router.num_experts,), -1)
        renumber[list(keep)] = torch.arange(len(keep))
        self.register_buffer("renumber", renumber)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        return (len(self.keep),)

    @property
    def row_independent(self) -> bool:
        return self.router.row_independent

    def forward(
        self, rows: Tensor, grid: tuple[int, ...] | None = None, context: Tensor | None = None
    ) -> RoutingPlan:
        """The plan; probabilities are those of the experts that remain, scaled to sum to 1."""
        plan: RoutingPlan = self.router(rows, grid, context)
        experts = self.renumber[plan.experts]
        there = experts >= 0
        logits = plan.logits[:, list(self.keep)]
        return replace(
            plan,
            experts=experts.clamp_min(0),
            weights=plan.weights * there,
            probabilities=logits.softmax(-1),
            logits=logits,
            group_sizes=self.group_sizes,
            kept=there if plan.kept is None else there & plan.kept,
            clean_logits=None,
            noise_std=None,
        )


@torch.no_grad()
def prune(bank: FeedForwardExperts, keep: Sequence[int]) -> ExpertBank:
    """A bank of the experts ``keep`` alone."""
    smaller = FeedForwardExperts(
        bank.up.shape[1],
        bank.down.shape[1],
        len(keep),
        bank.activation,
        bank.gated,
        bank.up_bias is not None,
    ).to(bank.up)
    for name, parameter in bank.named_parameters():
        owner: nn.Parameter = getattr(smaller, name)
        owner.copy_(parameter[list(keep)])
    return smaller
