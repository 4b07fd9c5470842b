"""Sparse upcycling: every expert starts as the dense block."""

from __future__ import annotations

import torch
from torch import nn

from geomoe.moe.experts.rows import Activation, FeedForwardExperts

__all__ = ["check_biases", "upcycle"]


@torch.no_grad()
def upcycle(
    up: nn.Linear, down: nn.Linear, num_experts: int, activation: Activation = "gelu", jitter: float = 0.0
) -> FeedForwardExperts:
    """Experts that are copies of a dense feed-forward block (Komatsuzaki et al. 2023).

    With a router whose weights sum to one (``normalised``, ``straight_through``) the layer's output equals
    the dense block's. Copies that are all equal part ways only through the router; some jitter makes them
    differ from the start.

    Args:
        up: first matrix of the block ``down(act(up(x)))``.
        down: second matrix of it.
        num_experts: E.
        activation: of the block.
        jitter: standard deviation of noise on each expert's weights, over that of the weights.
    """
    biased = check_biases(up, down)
    bank = FeedForwardExperts(up.in_features, up.out_features, num_experts, activation, bias=biased)
    bank.to(up.weight)
    for stack, layer in ((bank.up, up), (bank.down, down)):
        noise = torch.randn_like(stack) * layer.weight.std() * jitter
        stack.copy_(layer.weight.T + noise)
    if bank.up_bias is not None and bank.down_bias is not None:
        bank.up_bias.copy_(up.bias)
        bank.down_bias.copy_(down.bias)
    return bank


def check_biases(up: nn.Linear, down: nn.Linear) -> bool:
    """Whether the block's matrices have a bias; ValueError where one has and the other has not."""
    if (down.bias is None) != (up.bias is None):
        raise ValueError("both matrices of the block must have a bias, or neither")
    return up.bias is not None
