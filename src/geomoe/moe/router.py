"""Routers: signals in, a RoutingPlan out."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from geomoe.moe.plan import RoutingPlan

__all__ = ["DualRouter", "RoutingMode"]

RoutingMode = Literal["soft", "straight_through", "hard"]
"""How the weight of a chosen expert is made from the router's probability p.

``soft``: p itself (equation 7 of MFG-HMoE). The gradient reaches the router, and the result
starts near 1/E of the scale of a plain layer.
``straight_through``: the value of a hard choice, the gradient of p.
``hard``: the value of a hard choice and no gradient, as the authors' program routes: the router
never learns. For parity and ablation.
"""


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
    """

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

    def forward(self, signals: Tensor, grid: tuple[int, int, int]) -> RoutingPlan:
        """Plan for ``signals`` ``[N, C]``, whose rows are the pixels of ``grid`` (B, H, W)."""
        with torch.autocast(signals.device.type, enabled=False):
            x = signals.float()
            group_log_p = self.to_group(x).log_softmax(-1)  # [N, G]
            joint = [
                group_log_p[:, i : i + 1] + gate(x + self.group_embedding[i]).log_softmax(-1)
                for i, gate in enumerate(self.to_expert)
            ]
            best_group = group_log_p.argmax(-1)  # [N]
            logits = torch.cat(joint, -1)  # [N, E]
            probabilities = logits.exp()
            sizes = torch.tensor(self.group_sizes, device=x.device)
            group_of = torch.repeat_interleave(torch.arange(len(sizes), device=x.device), sizes)  # [E]
            allowed = group_of == best_group[:, None]  # [N, E]
            chosen = probabilities.detach().masked_fill(~allowed, -1.0).topk(self.top_k, -1).indices
            soft = probabilities.gather(1, chosen)  # [N, k]
            return RoutingPlan(chosen, self._weights(soft), probabilities, logits, self.group_sizes, grid)

    def _weights(self, soft: Tensor) -> Tensor:
        if self.mode == "soft":
            return soft
        value = (soft / soft.sum(-1, keepdim=True)).detach()
        if self.mode == "hard":
            return value
        # p / p.detach() has the same value, but its gradient is 1 / p times too steep where p is
        # small, and training diverges; the difference has the gradient of p as it is.
        return value + soft - soft.detach()
