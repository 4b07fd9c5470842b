"""Choices: from gate logits to the experts that a row is given, and their gate weights.

A choice is a module without parameters. It takes the gate logits ``[N, E]``, through which gradients reach
the router, and the preference ``[N, E]`` that experts are selected by (the logits, perhaps with a selection
bias added), and gives a :class:`Selection`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe.kernels.simplex import reachable, softmax, sparsemax, top
from geomoe.moe.routing.assignment import balanced_assignment
from geomoe.moe.settings import saved
from geomoe.moe.weights import (
    Affinity,
    RoutingMode,
    affinity,
    check_gate,
    check_mode,
    log_affinity,
    shares,
    weigh,
)

__all__ = [
    "AllExperts",
    "BalancedAssignment",
    "Choice",
    "ExpertChoice",
    "RandomExperts",
    "Selection",
    "Sparsemax",
    "TopK",
    "TopP",
]


class Selection(NamedTuple):
    """What a choice decided; the fields are those of :class:`geomoe.moe.RoutingPlan`."""

    experts: Tensor
    weights: Tensor
    probabilities: Tensor
    kept: Tensor | None = None


class Choice(nn.Module):
    """Base of all choices.

    Attributes:
        row_independent: whether, in evaluation, a row's experts depend on that row alone. Where they do not,
            the result of a scene depends on how it is cut into tiles.
    """

    row_independent = True

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        raise NotImplementedError


class TopK(Choice):
    """The k most preferred experts.

    Args:
        k: experts for each row; may be changed between calls (see :mod:`geomoe.moe.routing.schedule`), and is
            saved with the weights.
        mode: how they are weighed, see :data:`RoutingMode`.
        second_at_random: while training, carry out a second choice with probability ``min(1, 2 p2)`` alone,
            p2 its normalised weight (GShard, Lepikhin et al. 2021). In evaluation it is always carried out.
        gate: what weights are made of, see :data:`Affinity`; a plan's probabilities sum to 1 either way.
        scale: factor on every weight (the route scale of DeepSeek-V3).
    """

    def __init__(
        self,
        k: int = 1,
        mode: RoutingMode = "soft",
        second_at_random: bool = False,
        gate: Affinity = "softmax",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"top_k={k}: expected a whole number from 1")
        check_mode(mode, k)
        check_gate(gate)
        self.k, self.mode, self.second_at_random = k, mode, second_at_random
        self.gate, self.scale = gate, scale
        saved(self, "k")

    def extra_repr(self) -> str:
        return f"k={self.k}, mode={self.mode}, gate={self.gate}"

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        return self.select(logits, preference, self.k)

    def select(self, logits: Tensor, preference: Tensor, k: int) -> Selection:
        """The ``k`` most preferred experts."""
        s = affinity(logits, self.gate)
        # s over its sum, also where every s is too small for a number.
        p = s if self.gate == "softmax" else softmax(F.logsigmoid(logits))
        experts = top(preference, k)
        chosen = s.gather(1, experts)
        log_chosen = log_affinity(logits.gather(1, experts), self.gate)
        weights = weigh(chosen, self.mode, log_chosen)
        weights = weights if self.scale == 1 else weights * self.scale
        # The first choice by what a row believes has a belief of 1 / E or more.
        kept = None if k == 1 and preference is logits else reachable(preference, experts)
        if self.second_at_random and self.training and k > 1:
            chance = 2 * shares(log_chosen.detach())
            drawn = torch.rand_like(chance) < chance
            drawn[:, 0] = True
            kept = drawn if kept is None else drawn & kept
        return Selection(experts, weights, p, kept)


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
        kept = (before < self.p) if self.p < 1 else weights.detach() > 0
        kept[:, 0] = True
        return Selection(experts, weights, p, kept)


class AllExperts(Choice):
    """Every expert, weighed by its probability: the dense mixture (Jacobs et al. 1991).

    Args:
        threshold: experts below it are not run. 0 runs all; with
            :class:`geomoe.moe.routing.score.DSelectScore` a tiny one skips the experts
            that its selectors have left.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        return every(softmax(logits), self.threshold)


def every(p: Tensor, threshold: float = 0.0) -> Selection:
    """All experts, best first, weighed by ``p`` ``[N, E]``; those not above the threshold are not run.

    Experts of probability 0 (out of reach) never are.
    """
    experts = top(p, p.shape[1])
    weights = p.gather(1, experts)
    kept = weights.detach() > threshold
    if torch.compiler.is_exporting():  # no question to the data; weights of 0 add nothing
        return Selection(experts, weights, p, kept if threshold else None)
    return Selection(experts, weights, p, None if bool(kept.all()) else kept)


class Sparsemax(Choice):
    """The gate is sparsemax, which gives exact zeros, and so its own k (Martins and Astudillo 2016).

    The experts are those that sparsemax keeps of the preference; weights are the sparsemax, over these, of
    the logits, so that a bias which balances moves the choice alone.

    Args:
        biased: weights are those of the preference, as in the gate of Thaman et al. 2025, part of which is
            the multiplier (:class:`geomoe.moe.routing.adjust.DualAscent`).
    """

    def __init__(self, biased: bool = False) -> None:
        super().__init__()
        self.biased = biased

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        p = sparsemax(preference)
        if not self.biased and preference is not logits:
            p = sparsemax(logits.masked_fill(p == 0, float("-inf")))
        best_first = top(p, p.shape[1])
        weights = p.gather(1, best_first)
        return Selection(best_first, weights, p, weights > 0)


class ExpertChoice(Choice):
    """Every expert takes the rows that want it most, C each (Zhou et al. 2022): its load is even by design.

    A row may be taken by several experts or by none, and who takes it depends on the other rows of the
    call. Those that take it come first among its ``experts``.

    Args:
        experts_per_row: c, the mean number of experts that take a row: each takes ``C = ceil(c N / E)``.
    """

    row_independent = False

    def __init__(self, experts_per_row: float = 2.0) -> None:
        super().__init__()
        self.experts_per_row = experts_per_row

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        rows, number = logits.shape
        capacity = min(math.ceil(self.experts_per_row * rows / number), rows)
        taken = softmax(preference.detach()).topk(capacity, 0).indices  # [C, E]
        kept = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device).scatter_(0, taken, True)
        p = softmax(logits)
        experts = top(p.detach() + kept, number)  # those that take the row first, then by probability
        return Selection(experts, p.gather(1, experts), p, kept.gather(1, experts))


class BalancedAssignment(Choice):
    """A balanced linear assignment while training, the best expert in evaluation (BASE, Lewis et al. 2021).

    While training, every expert gets ``ceil(N / E)`` rows at most, such that the sum of the scores is
    greatest; a row's expert then depends on the other rows. The weight is the sigmoid of the score.
    """

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        wanted = preference.detach()
        experts = balanced_assignment(wanted)[:, None] if self.training else top(wanted, 1)
        return Selection(experts, logits.gather(1, experts).sigmoid(), softmax(logits))


class RandomExperts(Choice):
    """k random experts while training; in evaluation the mean of all, or random ones (THOR, Zuo et al. 2022).

    There is nothing to learn in such a router; :func:`geomoe.moe.objectives.balance.consistency_loss` makes
    the experts agree.

    Args:
        k: experts for each row.
        ensemble: in evaluation run all and take the mean, at E / k times the cost. Else k random ones, the
            same for the same number of rows: a row's experts depend on its place in the call.
    """

    def __init__(self, k: int = 1, ensemble: bool = True) -> None:
        super().__init__()
        self.k, self.ensemble = k, ensemble
        self.row_independent = ensemble

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        even = torch.full_like(logits, 1 / logits.shape[1])
        if self.training:
            draw = torch.rand_like(logits)
        elif self.ensemble:
            return every(even)
        else:
            draw = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
        experts = draw.topk(self.k, -1).indices
        return Selection(experts, even.new_full(experts.shape, 1 / self.k), even)
