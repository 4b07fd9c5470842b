"""Logit transforms and selection biases, between score and choice.

A logit transform (``adjust``) changes gate logits, and with them selection and weights: noise, temperature,
expert dropout. A selection bias (``prefer``, :class:`Preference`) changes the selection alone: a bias that
evens the load, the restriction to one group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe.kernels.simplex import logsumexp, score, top
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.settings import saved
from geomoe.moe.sort import count_choices
from geomoe.moe.weights import Affinity, affinity, check_clusters, check_gate, check_group_sizes

__all__ = [
    "AdaptiveNoise",
    "BestGroup",
    "DualAscent",
    "ExpertDropout",
    "FixedNoise",
    "GroupLimit",
    "LossFreeBias",
    "Noise",
    "Preference",
    "Temperature",
]


class Noise(nn.Module):
    """Gaussian noise on the logits while training, as wide as each row says: ``eps * softplus(x W_n)``.

    Shazeer et al. 2017, equation 4. Without it (evaluation) nothing is drawn.

    Args:
        channels: width of the rows.
        num_experts: E.
        least: width that is added, so that none is without noise.
    """

    def __init__(self, channels: int, num_experts: int, least: float = 0.0) -> None:
        super().__init__()
        self.least = least
        self.width = nn.Linear(channels, num_experts, bias=False)
        nn.init.zeros_(self.width.weight)

    def forward(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Standard deviation ``[N, E]`` of the noise on ``logits``, of ``rows`` ``[N, C]``."""
        return F.softplus(score(rows, self.width.weight)) + self.least


class AdaptiveNoise(Noise):
    """The same times how sure the row is, ``1 - H(p) / ln E`` of ``p = softmax(logits)``.

    None for a row to which all experts are alike, as wide as :class:`Noise` for one that is certain: those
    that would never see another expert are disturbed most. How sure a row is has no gradient of its own, else
    a router would become undecided to be left alone. A form that fits what is known of MFIAE (Sun et al.).
    """

    def forward(self, rows: Tensor, logits: Tensor) -> Tensor:
        """As of :class:`Noise`."""
        p = logits.detach().softmax(1)
        unsure = torch.special.entr(p).sum(1, keepdim=True) / math.log(max(2, p.shape[1]))
        std: Tensor = super().forward(rows, logits) * (1 - unsure).clamp_min(0)
        return std


class FixedNoise(nn.Module):
    """Gaussian noise on the logits while training, of one width for all (V-MoE, Riquelme et al. 2021).

    Args:
        num_experts: E.
        std: standard deviation; ``1 / E`` in V-MoE.
    """

    def __init__(self, num_experts: int, std: float) -> None:
        super().__init__()
        if not 0 < std < math.inf:
            raise ValueError(f"std={std}: expected above 0")
        self.num_experts, self.std = num_experts, std

    def extra_repr(self) -> str:
        return f"std={self.std:g}"

    def forward(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Standard deviation ``[N, E]`` of the noise."""
        return rows.new_full((rows.shape[0], self.num_experts), self.std)


class Temperature(nn.Module):
    """Logits over a temperature: high, and the router stays undecided. May be changed by a schedule."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: expected above 0")
        self.temperature = temperature
        saved(self, "temperature")

    def forward(self, logits: Tensor) -> Tensor:
        return logits / self.temperature


class ExpertDropout(nn.Module):
    """Experts that are out of reach for a row while training; the softmax makes up for them.

    One expert, drawn at random, is always spared; a row that would be left without any is left alone.

    Args:
        rate: probability for each row and expert.
        clusters: cluster of each expert (MoEC, Xie et al. 2023): one expert of every cluster survives.
            None: no clusters.
    """

    def __init__(self, rate: float = 0.1, clusters: tuple[int, ...] | None = None) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate}: expected 0 to 1, below 1")
        self.rate, self.clusters = rate, clusters
        saved(self, "rate")

    def extra_repr(self) -> str:
        return f"rate={self.rate}"

    def forward(self, logits: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return logits
        draw = torch.rand_like(logits)  # an expert survives where its draw is above the rate
        clusters = (0,) * logits.shape[1] if self.clusters is None else self.clusters
        check_clusters(clusters, logits.shape[1])
        of = torch.tensor(clusters, device=logits.device)
        spared = torch.zeros_like(draw, dtype=torch.bool)
        for cluster in set(clusters):
            chance = draw.masked_fill(of != cluster, -1)
            spared |= F.one_hot(chance.argmax(-1), logits.shape[1]).bool()
        masked = logits.masked_fill((draw < self.rate) & ~spared, float("-inf"))
        return torch.where(torch.isneginf(masked).all(-1, keepdim=True), logits, masked)


class Preference(nn.Module):
    """Base of what moves the choice and not the weights."""

    def forward(self, preference: Tensor) -> Tensor:
        """``[N, E]`` to ``[N, E]``."""
        raise NotImplementedError

    def update(self, plans: Sequence[RoutingPlan], rate: float) -> None:
        """Learn from the plans that were carried out for one step of the optimiser. Called after it."""


class LossFreeBias(Preference):
    """A bias that moves by a step towards even load (Wang et al. 2024; DeepSeek-V3, 2024).

    ``b += rate * sign(mean load - load)``, load before any capacity, over all processes. Usual rate 1e-3, on
    affinities. :meth:`update` is called by the training loop and not by the forward pass, so that a layer
    that is run twice (activation checkpointing) counts once.

    Args:
        group_sizes: experts in each group; loads are evened inside each, among the rows that came there.
        gate: what b is added to: the affinity by this gate, ``s + b``, as in both papers; None: the logit.
    """

    bias: Tensor

    def __init__(self, group_sizes: tuple[int, ...], gate: Affinity | None = None) -> None:
        super().__init__()
        if gate is not None:
            check_gate(gate)
        self.gate = gate
        self.group_sizes = check_group_sizes(group_sizes)
        self.register_buffer("bias", torch.zeros(sum(group_sizes), dtype=torch.float32))

    def forward(self, preference: Tensor) -> Tensor:
        if self.gate is None:
            return preference + self.bias
        chosen_by = affinity(preference, self.gate) + self.bias
        return chosen_by.masked_fill(
            torch.isneginf(preference), float("-inf")
        )  # what is out of reach stays so

    @torch.no_grad()
    def update(self, plans: Sequence[RoutingPlan], rate: float) -> None:
        loads = _everywhere(plans).split(self.group_sizes)
        for load, bias in zip(loads, self.bias.split(self.group_sizes), strict=True):
            # No question that a device would have to answer: a step does not wait for one.
            bias += torch.where(load.sum() > 0, self.step(load, bias, rate), 0)

    def step(self, load: Tensor, bias: Tensor, rate: float) -> Tensor:
        """What is added to ``bias`` ``[E]`` for the choices ``[E]`` that fell on each expert."""
        return rate * torch.sign(load.mean() - load)


class DualAscent(LossFreeBias):
    """As :class:`LossFreeBias`, by a step that is as large as the load's error (Thaman et al. 2025).

    ``b += rate * ((1 / E - load) - damping * b)``. The bias is the multiplier of the constraint of even load.
    With :class:`geomoe.moe.routing.choice.Sparsemax`, ``biased``, it is part of the gate.

    Args:
        group_sizes: as in :class:`LossFreeBias`.
        damping: pull of b towards 0: it bounds b at ``1 / damping``, and lets go of an expert whose load is
            even. 0: none.
    """

    def __init__(self, group_sizes: tuple[int, ...], damping: float = 0.0) -> None:
        super().__init__(group_sizes)
        if damping < 0:
            raise ValueError(f"damping={damping}: expected 0 or more")
        self.damping = damping

    def step(self, load: Tensor, bias: Tensor, rate: float) -> Tensor:
        return rate * (1 / len(load) - load / load.sum() - self.damping * bias)


class BestGroup(Preference):
    """Experts of a row's best group alone may be chosen (MFG-HMoE, equations 5 to 7).

    A group's probability is the sum over its experts. A bias on the groups evens their load.
    """

    bias: Tensor

    def __init__(self, group_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.group_sizes = check_group_sizes(group_sizes)
        self.register_buffer("bias", torch.zeros(len(group_sizes), dtype=torch.float32))

    def forward(self, preference: Tensor) -> Tensor:
        parts = preference.split(self.group_sizes, -1)
        best = top(torch.stack([logsumexp(p) for p in parts]).T + self.bias, 1)  # [N, 1]
        inside = [part.T.masked_fill((best != i).T, float("-inf")) for i, part in enumerate(parts)]
        return torch.cat(inside).T

    @torch.no_grad()
    def update(self, plans: Sequence[RoutingPlan], rate: float) -> None:
        load = torch.stack([part.sum() for part in _everywhere(plans).split(self.group_sizes)])
        self.bias += rate * torch.sign(load.mean() - load)


class GroupLimit(Preference):
    """Experts of a row's best groups alone may be chosen (DeepSeek-V3, 2024; of V2 with ``best`` of 1).

    A group is as good as the sum of its ``best`` most preferred experts.

    Args:
        group_sizes: experts in each group.
        groups: how many groups a row may choose from.
        best: experts that speak for a group.
    """

    def __init__(self, group_sizes: tuple[int, ...], groups: int, best: int = 2) -> None:
        super().__init__()
        group_sizes = check_group_sizes(group_sizes)
        if not 1 <= groups <= len(group_sizes):
            raise ValueError(f"groups={groups}: expected 1 to {len(group_sizes)}")
        if not 1 <= best <= min(group_sizes):
            raise ValueError(f"best={best}: expected 1 to {min(group_sizes)}, the smallest group")
        self.group_sizes, self.groups, self.best = group_sizes, groups, best

    def forward(self, preference: Tensor) -> Tensor:
        parts = preference.split(self.group_sizes, -1)
        worth = torch.stack([part.topk(self.best, -1).values.sum(-1) for part in parts], -1)  # [N, groups]
        allowed = torch.zeros_like(worth, dtype=torch.bool).scatter_(1, top(worth, self.groups), True)
        inside = [part.masked_fill(~allowed[:, i : i + 1], float("-inf")) for i, part in enumerate(parts)]
        return torch.cat(inside, -1)


def _everywhere(plans: Sequence[RoutingPlan]) -> Tensor:
    """``[E]`` choices that were asked for, on all processes: each must move its bias alike."""
    counts = torch.stack([count_choices(plan, asked=True) for plan in plans]).sum(0).float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(counts)
    return counts
