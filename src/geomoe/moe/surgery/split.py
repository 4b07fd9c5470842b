"""A dense block's neurons shared out among experts, by what they matter (MoEBERT, Zuo et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geomoe.moe.experts.rows import Activation, FeedForwardExperts
from geomoe.moe.surgery.upcycle import check_biases

__all__ = ["neuron_importance", "split_feed_forward"]


def neuron_importance(up: nn.Linear, down: nn.Linear) -> Tensor:
    """``[H]`` what the loss changes, to first order, when a neuron goes: ``|w·dL/dw|`` of both weights.

    Call it after ``backward`` on data that matter; sum it over batches.

    Raises:
        ValueError: no gradient has been computed.
    """
    if up.weight.grad is None or down.weight.grad is None:
        raise ValueError("neuron_importance: run backward on a loss first")
    into = (up.weight.detach() * up.weight.grad).sum(1)
    out = (down.weight.detach() * down.weight.grad).sum(0)
    return (into + out).abs()


@torch.no_grad()
def split_feed_forward(
    up: nn.Linear,
    down: nn.Linear,
    num_experts: int,
    importance: Tensor,
    shared: int = 0,
    activation: Activation = "gelu",
    top_k: int = 1,
) -> FeedForwardExperts:
    """Experts made of a dense block's neurons.

    Every expert holds the ``shared`` most important neurons; the others are dealt out in turn, most
    important first. What the block adds whatever the input (the bias of ``down``) is whole in each expert
    where a row is given one, as in MoEBERT; where ``top_k`` are summed each holds its part. With ``shared=0``
    experts are disjoint, and with ``top_k=E`` the sum of all of them is the dense block.

    Args:
        up: first matrix of the block ``down(act(up(x)))``.
        down: second matrix of it.
        num_experts: E.
        importance: ``[H]``, of each neuron.
        shared: neurons that every expert holds; what is left must be divisible by E.
        activation: of the block.
        top_k: experts that a row is given, whose results are summed with weights of 1.
    """
    hidden = up.out_features
    if not 1 <= top_k <= num_experts:
        raise ValueError(f"top_k={top_k}: expected 1 to {num_experts}")
    if (hidden - shared) % num_experts or not 0 <= shared < hidden:
        raise ValueError(
            f"shared={shared}: {hidden - shared} of {hidden} neurons are left, which {num_experts} experts "
            "cannot share equally"
        )
    order = importance.argsort(descending=True, stable=True)
    own = order[shared:].view(-1, num_experts).T  # [E, (H - shared) / E], dealt out in turn
    held = torch.cat([order[:shared].expand(num_experts, -1), own], 1)
    biased = check_biases(up, down)
    bank = FeedForwardExperts(up.in_features, held.shape[1], num_experts, activation, bias=biased)
    bank.to(up.weight)
    bank.up.copy_(up.weight[held].transpose(1, 2))  # [E, C, H']
    bank.down.copy_(down.weight.T[held])  # [E, H', C]
    if bank.up_bias is not None and bank.down_bias is not None:
        bank.up_bias.copy_(up.bias[held])
        bank.down_bias.copy_(down.bias / top_k)
    return bank
