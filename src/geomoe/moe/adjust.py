"""Adjustments between score and choice.

An adjustment of the **belief** changes logits, and with them choice and weights: noise, temperature, expert
dropout. An adjustment of the **preference** changes the choice alone: a bias that balances, the restriction
to one group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe.plan import RoutingPlan
from geomoe.moe.simplex import logsumexp, score, top
from geomoe.moe.sort import count_choices

__all__ = ["BestGroup", "DualAscent", "ExpertDropout", "LossFreeBias", "Noise", "Preference", "Temperature"]


class Noise(nn.Module):
    """Gaussian noise on the logits while training, as wide as each row says: ``eps * softplus(x W_n)``.

    Shazeer et al. 2017, equation 4. Without it (evaluation) nothing is drawn.

    Args:
        channels: width of the rows.
        num_experts: E.
    """

    def __init__(self, channels: int, num_experts: int) -> None:
        super().__init__()
        self.width = nn.Linear(channels, num_experts, bias=False)
        nn.init.zeros_(self.width.weight)

    def forward(self, rows: Tensor) -> Tensor:
        """Standard deviation ``[N, E]`` of the noise."""
        return F.softplus(score(rows, self.width.weight))


class Temperature(nn.Module):
    """Logits over a temperature: high, and the router stays undecided. May be changed by a schedule."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: expected above 0")
        self.temperature = temperature

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

    def extra_repr(self) -> str:
        return f"rate={self.rate}"

    def forward(self, logits: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return logits
        draw = torch.rand_like(logits)  # an expert survives where its draw is above the rate
        clusters = self.clusters if self.clusters is not None else (0,) * logits.shape[1]
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
    """A bias on each expert's logit that moves by a step towards even load (after Wang et al. 2024).

    ``b += rate * sign(mean load - load)``, load before any capacity, over all processes. The paper adds b
    to a sigmoid's value, we to the logit. Usual rate 1e-3. :meth:`update` is called by the training loop
    and not by the forward pass, so that a layer that is run twice (activation checkpointing) counts once.

    Args:
        group_sizes: experts in each group; loads are evened inside each, among the rows that came there.
    """

    bias: Tensor

    def __init__(self, group_sizes: tuple[int, ...]) -> None:
        super().__init__()
        if not isinstance(group_sizes, tuple):
            raise ValueError(
                f"group_sizes={group_sizes!r}: expected a tuple, ({group_sizes},) without groups"
            )
        self.group_sizes = group_sizes
        self.register_buffer("bias", torch.zeros(sum(group_sizes), dtype=torch.float32))

    def forward(self, preference: Tensor) -> Tensor:
        return preference + self.bias

    @torch.no_grad()
    def update(self, plans: Sequence[RoutingPlan], rate: float) -> None:
        loads = _everywhere(plans).split(self.group_sizes)
        for load, bias in zip(loads, self.bias.split(self.group_sizes), strict=True):
            # No question that a device would have to answer: a step does not wait for one.
            bias += rate * torch.where(load.sum() > 0, self.step(load), 0)

    def step(self, load: Tensor) -> Tensor:
        """Direction of the bias for the choices ``[E]`` that fell on each expert."""
        return torch.sign(load.mean() - load)


class DualAscent(LossFreeBias):
    """As :class:`LossFreeBias`, by a step that is as large as the load's error (Thaman et al. 2025).

    The bias is the multiplier of the constraint of even load. With :class:`geomoe.moe.choice.Sparsemax`,
    which takes its gate from the preference, it is part of the gate.
    """

    def step(self, load: Tensor) -> Tensor:
        return 1 / len(load) - load / load.sum()


class BestGroup(Preference):
    """Experts of a row's best group alone may be chosen (MFG-HMoE, equations 5 to 7).

    A group's probability is the sum over its experts. A bias on the groups evens their load.
    """

    bias: Tensor

    def __init__(self, group_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.group_sizes = group_sizes
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


def _everywhere(plans: Sequence[RoutingPlan]) -> Tensor:
    """``[E]`` choices that were asked for, on all processes: each must move its bias alike."""
    counts = torch.stack([count_choices(plan, asked=True) for plan in plans]).sum(0).float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(counts)
    return counts
