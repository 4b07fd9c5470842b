"""Routers: signals in, a RoutingPlan out."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from geomoe.moe.plan import RoutingPlan
from geomoe.moe.telemetry import load

__all__ = ["DualRouter", "RoutingMode"]

RoutingMode = Literal["soft", "straight_through", "hard"]
"""How the weight of a chosen expert is made from the router's probability p.

``soft``: p itself (equation 7 of MFG-HMoE). The gradient reaches the router, and the result
starts near 1/E of the scale of a plain layer.
``straight_through``: the value of a hard choice, the gradient of p.
``hard``: the value of a hard choice and no gradient, as the authors' program routes: the router
never learns. For parity and ablation.
"""


_INITIAL_GAIN = 4.0
"""Router weights start larger than nn.Linear's by this. An undecided router would give every expert a weight
near 1 / E (equation 7 would start at 1/16 of a plain layer's scale), and its choice would be noise."""


class DualRouter(nn.Module):
    """Chooses a group of experts, then experts of that group (MFG-HMoE, equations 5 and 6).

    ``p_i = softmax_i(W x)`` over groups; inside group i, ``p_j = softmax_j(W_i (x + PE_i))``, PE an
    embedding of the group. The top ``top_k`` experts of the most likely group are chosen. All
    groups' routers are evaluated, so that the plan holds a full distribution ``p_i * p_j``. The
    gate is computed in float32 whatever the precision of the signals.

    Args:
        channels: width of the signals.
        group_sizes: experts in each group.
        top_k: experts run for each row.
        mode: see :data:`RoutingMode`.

    Raises:
        ValueError: an unknown mode, or more experts wanted than the smallest group has.

    The choice, but not the weight, is made with a bias on each group and expert, which :meth:`rebalance`
    moves (loss-free balance, Wang et al. 2024). It stays 0 unless that is called.
    """

    group_bias: Tensor
    expert_bias: Tensor

    def __init__(
        self, channels: int, group_sizes: tuple[int, ...], top_k: int = 1, mode: RoutingMode = "soft"
    ) -> None:
        super().__init__()
        if mode not in get_args(RoutingMode):
            raise ValueError(f"routing={mode!r}: expected one of {', '.join(get_args(RoutingMode))}")
        if not 1 <= top_k <= min(group_sizes):
            raise ValueError(f"top_k={top_k}: expected 1 to {min(group_sizes)}, the smallest group")
        self.group_sizes = group_sizes
        self.top_k = top_k
        self.mode = mode
        self.to_group = nn.Linear(channels, len(group_sizes), bias=False)
        self.to_expert = nn.ModuleList(nn.Linear(channels, size, bias=False) for size in group_sizes)
        self.group_embedding = nn.Parameter(torch.randn(len(group_sizes), channels) * 0.02)
        for gate in (self.to_group, *self.to_expert):
            gate.weight.data *= _INITIAL_GAIN
        self.register_buffer("group_bias", torch.zeros(len(group_sizes)))
        self.register_buffer("expert_bias", torch.zeros(sum(group_sizes)))

    def forward(self, signals: Tensor, grid: tuple[int, int, int]) -> RoutingPlan:
        """Plan for ``signals`` ``[N, C]``, whose rows are the pixels of ``grid`` (B, H, W)."""
        with torch.autocast(signals.device.type, enabled=False):
            x = signals.float()
            group_log_p = self.to_group(x).log_softmax(-1)  # [N, G]
            joint = [
                group_log_p[:, i : i + 1] + gate(x + self.group_embedding[i]).log_softmax(-1)
                for i, gate in enumerate(self.to_expert)
            ]
            best_group = (group_log_p + self.group_bias).argmax(-1)  # [N]
            logits = torch.cat(joint, -1)  # [N, E]
            probabilities = logits.exp()
            sizes = torch.tensor(self.group_sizes, device=x.device)
            group_of = torch.repeat_interleave(torch.arange(len(sizes), device=x.device), sizes)  # [E]
            allowed = group_of == best_group[:, None]  # [N, E]
            score = (logits + self.expert_bias).detach().masked_fill(~allowed, float("-inf"))
            chosen = score.topk(self.top_k, -1).indices
            soft = probabilities.gather(1, chosen)  # [N, k]
            return RoutingPlan(chosen, self._weights(soft), probabilities, logits, self.group_sizes, grid)

    @torch.no_grad()
    def rebalance(self, plan: RoutingPlan, rate: float) -> None:
        """Move the biases by ``rate`` towards even use: groups among all rows, experts within their group.

        Call it once for each plan, after the optimiser's step; weights and gradients do not change.
        """
        share = load(plan)  # [E]
        start = 0
        for i, size in enumerate(self.group_sizes):
            members = share[start : start + size]
            self.group_bias[i] += rate * torch.sign(1 / len(self.group_sizes) - members.sum())
            if members.sum() > 0:
                self.expert_bias[start : start + size] += rate * torch.sign(members.mean() - members)
            start += size

    def _weights(self, soft: Tensor) -> Tensor:
        if self.mode == "soft":
            return soft
        value = (soft / soft.sum(-1, keepdim=True)).detach()
        if self.mode == "hard":
            return value
        # p / p.detach() has the same value, but its gradient is 1 / p times too steep where p is
        # small, and training diverges; the difference has the gradient of p as it is.
        return value + soft - soft.detach()
