"""How much a chosen expert counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.moe.kernels.simplex import softmax

__all__ = [
    "Affinity",
    "RoutingMode",
    "affinity",
    "check_clusters",
    "check_gate",
    "check_group_sizes",
    "check_mode",
    "log_affinity",
    "shares",
    "weigh",
]

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


def check_group_sizes(group_sizes: Sequence[int]) -> tuple[int, ...]:
    """``group_sizes`` as a tuple.

    Raises:
        ValueError: a number, or a group without experts.
    """
    if not isinstance(group_sizes, Sequence):
        raise ValueError(f"group_sizes={group_sizes!r}: expected a tuple, ({group_sizes},) without groups")
    if not group_sizes or min(group_sizes) < 1:
        raise ValueError(f"group_sizes={tuple(group_sizes)}: expected at least one expert in every group")
    return tuple(group_sizes)


def check_clusters(clusters: Sequence[int], num_experts: int) -> tuple[int, ...]:
    """``clusters`` as a tuple; ValueError for anything but the cluster of each of ``num_experts``."""
    if not isinstance(clusters, Sequence) or len(clusters) != num_experts:
        raise ValueError(f"clusters={clusters!r}: expected the cluster of each of {num_experts} experts")
    return tuple(clusters)


def check_gate(gate: Affinity) -> None:
    """Raise ValueError for an unknown gate."""
    if gate not in get_args(Affinity):
        raise ValueError(f"gate={gate!r}: expected one of {', '.join(get_args(Affinity))}")


def log_affinity(logits: Tensor, gate: Affinity) -> Tensor:
    """Logarithm of :func:`affinity`, up to a constant of each row: it does not underflow."""
    return logits if gate == "softmax" else F.logsigmoid(logits)


def shares(log_chosen: Tensor) -> Tensor:
    """Affinities ``[N, k]`` over their sum, from their logarithms; in equal parts where all are 0."""
    return softmax(log_chosen.clamp_min(torch.finfo(log_chosen.dtype).min))


def weigh(chosen: Tensor, mode: RoutingMode, log_chosen: Tensor | None = None) -> Tensor:
    """Weights ``[N, k]`` of the chosen experts.

    Args:
        chosen: ``[N, k]`` their affinities.
        mode: see :data:`RoutingMode`.
        log_chosen: the logarithms, up to a constant of each row: a preference may choose experts whose
            affinities all underflow. Of ``chosen`` by default.
    """
    if mode == "soft":
        return chosen
    if log_chosen is None:
        log_chosen = chosen.clamp_min(torch.finfo(chosen.dtype).tiny).log()
    share = shares(log_chosen)
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
