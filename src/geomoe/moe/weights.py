"""How much a chosen expert counts."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from geomoe.moe.simplex import softmax

__all__ = ["Affinity", "RoutingMode", "affinity", "check_gate", "check_mode", "weigh"]

Affinity = Literal["softmax", "sigmoid"]
"""How the affinity s of a row to an expert is made from logits: ``softmax`` over experts, or the ``sigmoid``
of each logit by itself (DeepSeek-V3, 2024)."""

RoutingMode = Literal["soft", "normalised", "straight_through", "hard"]
"""How the weight of a chosen expert is made from the router's probability p.

``soft``: p itself (Switch; equation 7 of MFG-HMoE). The gradient reaches the router, and the result starts
near 1/E of the scale of a plain layer. ``normalised``: p over the sum of the chosen, the softmax over the
top k (Shazeer et al. 2017). For k of 2 or more: with one choice it is the constant 1, and the router would
never learn. ``straight_through``: the value of ``normalised``, the gradient of p. ``hard``: the value of
``normalised`` and no gradient: the router never learns. For parity and ablation.
"""


def affinity(logits: Tensor, gate: Affinity) -> Tensor:
    """Affinities ``[N, E]`` in [0, 1] from logits ``[N, E]``; with ``softmax`` they sum to 1."""
    return softmax(logits) if gate == "softmax" else logits.sigmoid()


def check_gate(gate: Affinity) -> None:
    """Raise ValueError for an unknown gate."""
    if gate not in get_args(Affinity):
        raise ValueError(f"gate={gate!r}: expected one of {', '.join(get_args(Affinity))}")


def weigh(chosen: Tensor, mode: RoutingMode) -> Tensor:
    """Weights ``[N, k]`` from the affinities ``[N, k]`` of the chosen experts."""
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


def check_mode(mode: RoutingMode, k: int) -> None:
    """Raise ValueError for an unknown mode, and for one with which a router of k choices could not learn."""
    if mode not in get_args(RoutingMode):
        raise ValueError(f"routing={mode!r}: expected one of {', '.join(get_args(RoutingMode))}")
    if mode == "normalised" and k == 1:
        raise ValueError("routing='normalised': with top_k=1 every weight is 1 and the router never learns")
