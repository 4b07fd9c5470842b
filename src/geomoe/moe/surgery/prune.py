"""Pruning: the experts that a modality uses, and no others (MAPEX, Hanna et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.experts.convolution import ConvExperts, DepthwiseExperts, HeterogeneousBank
from geomoe.moe.experts.joined import CopyExperts, JoinedBank, SharedValueExperts, ZeroExperts
from geomoe.moe.experts.rows import FeedForwardExperts, LowRankExperts, ModuleExperts
from geomoe.moe.layers.layer import MoE
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.routing.router import AnyRouter
from geomoe.moe.sort import count_choices

__all__ = ["PrunedRouter", "keep_experts", "prune", "used_experts"]


def used_experts(plans: Iterable[RoutingPlan], keep: int) -> tuple[int, ...]:
    """The ``keep`` experts that most choices of one modality's plans fell on, ascending."""
    total = torch.stack([count_choices(plan) for plan in plans]).sum(0)
    if not 1 <= keep <= len(total):
        raise ValueError(f"keep={keep}: expected 1 to {len(total)} experts")
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
        _check(keep, router.num_experts)
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
        self,
        rows: Tensor,
        grid: tuple[int, ...] | None = None,
        context: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> RoutingPlan:
        """The plan; probabilities are those of the experts that remain, scaled to sum to 1."""
        plan: RoutingPlan = self.router(rows, grid, context, valid)
        experts = self.renumber[plan.experts]
        there = experts >= 0
        left = plan.probabilities[:, list(self.keep)]
        total = left.sum(1, keepdim=True)
        even = torch.full_like(left, 1 / len(self.keep))  # of a row all of whose experts are gone
        return replace(
            plan,
            experts=experts.clamp_min(0),
            weights=plan.weights * there,
            probabilities=torch.where(total > 0, left / total.clamp_min(1e-30), even),
            logits=plan.logits[:, list(self.keep)],
            group_sizes=self.group_sizes,
            kept=there if plan.kept is None else there & plan.kept,
            dropped=None if plan.dropped is None else there & plan.dropped,
            noise=None,
        )


@torch.no_grad()
def prune(layer: MoE, keep: Sequence[int]) -> MoE:
    """A layer of the experts ``keep`` alone, behind a :class:`PrunedRouter`.

    Rows all of whose experts are gone get 0, or what the shared expert says.

    Args:
        layer: with a bank whose parameters are stacks of experts, of modules, or of such banks.
        keep: experts that remain, ascending.
    """
    _check(keep, layer.router.num_experts)
    return MoE(PrunedRouter(layer.router, keep), keep_experts(layer.bank, keep), layer.shared, layer.backend)


def keep_experts(bank: ExpertBank, keep: Sequence[int]) -> ExpertBank:
    """A copy of ``bank`` with the experts ``keep`` alone, ascending."""
    if isinstance(bank, JoinedBank | HeterogeneousBank):
        ends = pairwise(accumulate((part.num_experts for part in bank), initial=0))
        mine = [([e - a for e in keep if a <= e < b], part) for (a, b), part in zip(ends, bank, strict=True)]
        return type(bank)([keep_experts(part, inside) for inside, part in mine if inside])  # type: ignore[misc]
    bank = deepcopy(bank)
    if isinstance(bank, ModuleExperts):
        bank.experts = nn.ModuleList(bank.experts[e] for e in keep)
        bank.flops = None if bank.flops is None else tuple(bank.flops[e] for e in keep)
    elif isinstance(bank, SharedValueExperts):
        bank.gate = nn.Parameter(bank.gate[list(keep)], bank.gate.requires_grad)
    elif isinstance(bank, _STACKED):
        for name, parameter in list(bank.named_parameters()):
            setattr(bank, name, nn.Parameter(parameter[list(keep)], parameter.requires_grad))
    else:
        raise ValueError(f"prune: it is not known which parameters of a {type(bank).__name__} are whose")
    bank.group_sizes = (len(keep),)
    return bank


_STACKED = (FeedForwardExperts, LowRankExperts, ConvExperts, DepthwiseExperts, ZeroExperts, CopyExperts)


def _check(keep: Sequence[int], experts: int) -> None:
    if (
        not isinstance(keep, Sequence)
        or not keep
        or sorted(set(keep)) != list(keep)
        or keep[0] < 0
        or keep[-1] >= experts
    ):
        raise ValueError(f"keep={keep!r}: expected ascending experts below {experts}")
