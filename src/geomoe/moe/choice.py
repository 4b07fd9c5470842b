"""Choices: from what a router thinks of the experts to the experts that a row is given.

A choice is a module without parameters. It takes the logits ``[N, E]`` (what the router believes, with its
gradient) and the preference ``[N, E]`` (what it chooses by: the logits, perhaps moved by a bias that
balances), and gives a :class:`Selection`.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from geomoe.moe.assignment import balanced_assignment
from geomoe.moe.simplex import softmax, sparsemax, top

__all__ = [
    "AllExperts",
    "BalancedAssignment",
    "Choice",
    "ExpertChoice",
    "RandomExperts",
    "RoutingMode",
    "Selection",
    "Sparsemax",
    "TopK",
    "TopP",
]

RoutingMode = Literal["soft", "normalised", "straight_through", "hard"]
"""How the weight of a chosen expert is made from the router's probability p.

``soft``: p itself (Switch; equation 7 of MFG-HMoE). The gradient reaches the router, and the result starts
near 1/E of the scale of a plain layer. ``normalised``: p over the sum of the chosen, the softmax over the
top k (Shazeer et al. 2017). For k of 2 or more: with one choice it is the constant 1, and the router would
never learn. ``straight_through``: the value of ``normalised``, the gradient of p. ``hard``: the value of
``normalised`` and no gradient: the router never learns. For parity and ablation.
"""


class Selection(NamedTuple):
    """What a choice decided; the fields are those of :class:`geomoe.moe.RoutingPlan`."""

    experts: Tensor
    weights: Tensor
    probabilities: Tensor
    kept: Tensor | None = None


class Choice(nn.Module):
    """Base of all choices.

    Attributes:
        row_independent: whether a row's experts depend on that row alone. Where they do not, the result of a
            scene depends on how it is cut into tiles.
    """

    row_independent = True

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        raise NotImplementedError


class TopK(Choice):
    """The k most preferred experts.

    Args:
        k: experts for each row; may be changed between calls (see :mod:`geomoe.moe.schedule`).
        mode: how they are weighed, see :data:`RoutingMode`.
        second_at_random: while training, carry out a second choice with probability ``min(1, 2 p2)`` alone,
            p2 its normalised weight (GShard, Lepikhin et al. 2021). In evaluation it is always carried out.
    """

    def __init__(self, k: int = 1, mode: RoutingMode = "soft", second_at_random: bool = False) -> None:
        super().__init__()
        if mode not in get_args(RoutingMode):
            raise ValueError(f"routing={mode!r}: expected one of {', '.join(get_args(RoutingMode))}")
        if k < 1:
            raise ValueError(f"top_k={k}: expected at least 1")
        if mode == "normalised" and k == 1:
            raise ValueError(
                "routing='normalised': with top_k=1 every weight is 1 and the router never learns"
            )
        self.k, self.mode, self.second_at_random = k, mode, second_at_random

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        p = softmax(logits)
        experts = top(preference, self.k)
        chosen = p.gather(1, experts)
        weights = weigh(chosen, self.mode)
        if not (self.second_at_random and self.training and self.k > 1):
            return Selection(experts, weights, p)
        chance = 2 * (chosen / chosen.sum(-1, keepdim=True)).detach()
        kept = torch.rand_like(chance) < chance
        kept[:, 0] = True
        return Selection(experts, weights, p, kept)


def weigh(chosen: Tensor, mode: RoutingMode) -> Tensor:
    """Weights ``[N, k]`` from the probabilities ``[N, k]`` of the chosen experts."""
    if mode == "soft":
        return chosen
    share = chosen / chosen.sum(-1, keepdim=True).clamp_min(torch.finfo(chosen.dtype).tiny)
    if mode == "normalised":
        return share
    if mode == "hard":
        return share.detach()
    # p / p.detach() has the same value, but its gradient is 1 / p times too steep where p is
    # small, and training diverges; the difference has the gradient of p as it is.
    return share.detach() + chosen - chosen.detach()


class TopP(Choice):
    """The smallest set of experts whose probabilities reach ``p`` (Huang et al. 2024). Harder rows get more.

    Args:
        p: 0 gives one expert, 1 all of them.
        most: at most this many; None for no limit.
    """

    def __init__(self, p: float = 0.4, most: int | None = None) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p={p}: expected 0 to 1")
        self.p, self.most = p, most

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        p = softmax(logits)
        experts = top(preference, min(self.most or preference.shape[1], preference.shape[1]))
        weights = p.gather(1, experts)
        before = weights.detach().cumsum(-1) - weights.detach()  # probability gathered by better experts
        kept = (before < self.p) if self.p < 1 else torch.ones_like(before, dtype=torch.bool)
        kept[:, 0] = True
        return Selection(experts, weights, p, kept)


class AllExperts(Choice):
    """Every expert, weighed by its probability: the dense mixture (Jacobs et al. 1991).

    Args:
        threshold: experts below it are not run. 0 runs all; with :class:`geomoe.moe.score.DSelectScore` a
            tiny one skips the experts that its selectors have left.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        return every(softmax(logits), self.threshold)


def every(p: Tensor, threshold: float = 0.0) -> Selection:
    """All experts in their order, weighed by ``p`` ``[N, E]``; those not above the threshold are not run."""
    experts = torch.arange(p.shape[1], device=p.device).expand(p.shape)
    return Selection(experts, p, p, p > threshold if threshold > 0 else None)


class Sparsemax(Choice):
    """The gate is sparsemax, which gives exact zeros, and so its own k (Martins and Astudillo 2016)."""

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        p = sparsemax(preference)
        best_first = top(p, p.shape[1])
        weights = p.gather(1, best_first)
        return Selection(best_first, weights, p, weights > 0)


class ExpertChoice(Choice):
    """Every expert takes the rows that want it most, C each (Zhou et al. 2022): its load is even by design.

    A row may be taken by several experts or by none, and who takes it depends on the other rows of the call.

    Args:
        rows_per_expert: c; each expert takes ``C = ceil(c N / E)`` rows.
    """

    row_independent = False

    def __init__(self, rows_per_expert: float = 2.0) -> None:
        super().__init__()
        self.rows_per_expert = rows_per_expert

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        rows, experts = logits.shape
        capacity = min(math.ceil(self.rows_per_expert * rows / experts), rows)
        taken = softmax(preference.detach()).topk(capacity, 0).indices  # [C, E]
        kept = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device).scatter_(0, taken, True)
        return every(softmax(logits))._replace(kept=kept)


class BalancedAssignment(Choice):
    """A balanced linear assignment while training, the best expert in evaluation (BASE, Lewis et al. 2021).

    While training, every expert gets ``ceil(N / E)`` rows at most, such that the sum of the scores is
    greatest; a row's expert then depends on the other rows. The weight is the sigmoid of the score.
    """

    row_independent = False

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        expert = balanced_assignment(preference.detach()) if self.training else preference.detach().argmax(-1)
        experts = expert[:, None]
        return Selection(experts, logits.gather(1, experts).sigmoid(), softmax(logits))


class RandomExperts(Choice):
    """k random experts while training, the mean of all in evaluation (stochastic experts, THOR, Zuo et al.
    2022).

    There is nothing to learn in such a router; :func:`geomoe.moe.balance.consistency_loss` makes the
    experts agree.
    """

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k = k

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        even = torch.full_like(logits, 1 / logits.shape[1])
        if not self.training:
            return every(even)
        experts = torch.rand_like(logits).topk(self.k, -1).indices
        return Selection(experts, even.new_full(experts.shape, 1 / self.k), even)
