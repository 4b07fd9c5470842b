"""Selective state spaces (Gu and Dao 2023) in plain PyTorch, in time and memory linear in the length.

A state of N numbers a channel is carried along a sequence: ``h_t = a_t h_{t-1} + b_t``, where both depend on
the input. One step after another, a loop over L would record L small operations for the backward pass, which
then takes a hundred times the forward one. So the sequence is cut into about sqrt(L) chunks that are scanned
side by side, what each hands on is carried over, and the gradient is the same recurrence run backwards.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

__all__ = ["GatedScan", "SelectiveScan", "linear_recurrence", "selective_scan"]


def linear_recurrence(decay: Tensor, added: Tensor) -> Tensor:
    """``h_t = decay_t * h_{t-1} + added_t`` along the first dimension, from ``h_{-1} = 0``.

    Args:
        decay: ``[L, ...]``, L at least 1.
        added: of the same shape.

    Returns:
        ``[L, ...]``, every ``h_t``. Differentiable as often as is asked for.
    """
    out: Tensor = _Recurrence.apply(decay, added)  # type: ignore[no-untyped-call]
    return out


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay: Tensor, added: Tensor) -> Tensor:
        h = _in_chunks(decay, added)
        ctx.save_for_backward(decay, h)
        return h

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor]:
        decay, h = ctx.saved_tensors  # type: ignore[attr-defined]
        # What h_t adds to the loss by itself, and what it adds by h_{t+1}: the recurrence from the end.
        later = torch.cat([decay[1:], torch.zeros_like(decay[:1])])
        to_added = linear_recurrence(later.flip(0), grads[0].flip(0)).flip(0)
        before = torch.cat([torch.zeros_like(h[:1]), h[:-1]])
        return to_added * before, to_added


def _in_chunks(decay: Tensor, added: Tensor) -> Tensor:
    length, shape = len(added), added.shape
    steps = math.isqrt(length - 1) + 1
    chunks = -(-length // steps)
    filled = chunks * steps - length
    # Steps first: what is done at once, one step of every chunk, lies together.
    a, h = (
        torch.cat([x, x.new_zeros(filled, *shape[1:])]).view(chunks, steps, -1).transpose(0, 1).contiguous()
        for x in (decay, added)
    )
    for t in range(1, steps):
        h[t].addcmul_(a[t], h[t - 1])
        a[t].mul_(a[t - 1])  # the decay since the chunk began
    carried = torch.zeros_like(h)[:1, 0].expand(chunks, -1).clone()
    for chunk in range(1, chunks):
        torch.addcmul(h[-1, chunk - 1], a[-1, chunk - 1], carried[chunk - 1], out=carried[chunk])
    h.addcmul_(a, carried)
    return h.transpose(0, 1).reshape(chunks * steps, *shape[1:])[:length]


def selective_scan(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The state space of Mamba (equation 2, as its program discretises it) on B sequences of length L.

    ``h_t = exp(step_t a) h_{t-1} + step_t b_t x_t`` and ``y_t = c_t h_t``, with N numbers in a channel's h.

    Args:
        x: ``[B, L, D]``.
        step: ``[B, L, D]``, above 0: how much of a step's input is taken in, and of the state forgotten.
        a: ``[D, N]``, below 0.
        b: ``[B, L, N]``, what of the input enters the state.
        c: ``[B, L, N]``, what of the state is read.

    Returns:
        ``[B, L, D]``; at t nothing of what comes after t.
    """
    decay = torch.exp(step.unsqueeze(-1) * a)  # [B, L, D, N]
    added = (step * x).unsqueeze(-1) * b.unsqueeze(2)
    h = linear_recurrence(decay.transpose(0, 1), added.transpose(0, 1))  # [L, B, D, N]
    return torch.einsum("lbdn,bln->bld", h, c)


class SelectiveScan(nn.Module):
    """A selective state space as a layer, ``[B, L, D]`` to the same shape.

    Steps, B and C are linear in the input; ``a`` starts at -1..-N and steps between .001 and .1, as in Mamba.

    Args:
        width: channels D.
        state: numbers N of a channel's state.
        rank: of the map to the steps.
    """

    def __init__(self, width: int, state: int = 16, rank: int = 1) -> None:
        super().__init__()
        self.sizes = (rank, state, state)
        self.from_input = nn.Linear(width, sum(self.sizes), bias=False)
        self.to_step = nn.Linear(rank, width)
        self.log_a = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))
        nn.init.uniform_(self.to_step.weight, -(rank**-0.5), rank**-0.5)
        start = torch.exp(torch.empty(width).uniform_(math.log(1e-3), math.log(1e-1)))
        with torch.no_grad():
            self.to_step.bias.copy_(start + torch.log(-torch.expm1(-start)))  # softplus of it is ``start``

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The result; steps that are not ``valid`` (``[B, L]`` bool) leave every state as it is."""
        rank, b, c = self.from_input(x).split(self.sizes, -1)
        step = F.softplus(self.to_step(rank))
        if valid is not None:
            step = step * valid.unsqueeze(-1)
        return selective_scan(x, step, -self.log_a.exp(), b, c) + self.skip * x


class GatedScan(nn.Module):
    """What stands around a state space: ``leave(LN(scan(silu(conv(value)))) * silu(gate))``.

    Args:
        channels: in and out.
        inner: of the state space.
        state: numbers of a state.
        conv: a depthwise convolution over what is scanned.
    """

    def __init__(self, channels: int, inner: int, state: int, conv: nn.Module) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(channels, 2 * inner), nn.Linear(inner, channels)
        self.conv, self.norm = conv, nn.LayerNorm(inner)
        self.scan = SelectiveScan(inner, state, rank=max(inner // 16, 1))

    def finish(self, scanned: Tensor, gate: Tensor) -> Tensor:
        out: Tensor = self.leave(self.norm(scanned) * F.silu(gate))
        return out
