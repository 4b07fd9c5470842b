"""Feed-forward experts on a CPU, fused: each expert's rows go through both matrices a cache-full at a time.

Between the two matrices a block is several times as wide as its rows. Here that width never leaves the
cache but once, to be kept for the backward pass; the activation is computed again there, which costs less
than to read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.moe.kernels.batches import StackGradient, batches, bias_gradient

__all__ = [
    "ACTIVATIONS",
    "ActivationFunction",
    "feed_forward",
    "in_autocast",
    "once_differentiable",
    "without_autocast",
]

Method = TypeVar("Method", bound=Callable[..., Any])


def without_autocast(method: Method) -> Method:
    """An autograd function's forward or backward that computes in the precision of what it is given."""

    @wraps(method)
    def plain(ctx: Any, first: Tensor, *args: Any) -> Any:
        with torch.autocast(first.device.type, enabled=False):
            return method(ctx, first, *args)

    return cast(Method, plain)


def once_differentiable(method: Method) -> Method:
    """An autograd function's backward that has no derivative of its own; what asks for one is told.

    ``torch.autograd.function.once_differentiable`` is silent where the gradient that comes in is a constant,
    as that of a sum is: part of a second derivative would be missing.
    """

    @wraps(method)
    def once(ctx: Any, *grads: Tensor) -> Any:
        with torch.no_grad():
            found = method(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        return tuple(None if g is None else _Last.apply(g.detach().requires_grad_()) for g in found)  # type: ignore[no-untyped-call]

    return cast(Method, once)


class _Last(torch.autograd.Function):
    """A first derivative."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise ValueError(
            "second derivatives: of the back ends dense alone has them; make the layer with backend='dense'"
        )


@dataclass(frozen=True)
class ActivationFunction:
    """An activation and its derivative: ``backward(grad, x)`` is the gradient for ``x``."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS = {
    "gelu": ActivationFunction(F.gelu, lambda grad, x: torch.ops.aten.gelu_backward(grad, x)),
    "relu": ActivationFunction(F.relu, lambda grad, x: torch.ops.aten.threshold_backward(grad, x, 0)),
    "silu": ActivationFunction(F.silu, lambda grad, x: torch.ops.aten.silu_backward(grad, x)),
}


def feed_forward(
    rows: Tensor,
    up: Tensor,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    index: Tensor,
    counts: tuple[int, ...],
    activation: ActivationFunction,
    gated: bool,
) -> Tensor:
    """``down[e] act(up[e] x + b) + b'`` for each row of ``index``, e its expert.

    Args:
        rows: ``[N, C]``.
        up: ``[E, C, H]``; ``[E, C, 2H]`` of a gated block, what is activated first.
        up_bias: ``[E, H]``, or None.
        down: ``[E, H, C']``.
        down_bias: ``[E, C']``, or None.
        index: ``[m]`` int64, sorted by expert.
        counts: rows of each expert; sums to m.
        activation: between the matrices.
        gated: whether the activated half multiplies the other.

    Returns:
        ``[m, C']``.
    """
    rows, kind = in_autocast(rows)
    weights = [None if w is None else w.to(rows.dtype) for w in (up, up_bias, down, down_bias)]
    keep = torch.is_grad_enabled()
    out: Tensor = _FeedForward.apply(rows, *weights, index, counts, activation, gated, keep)  # type: ignore[no-untyped-call]
    return out.to(kind)


def in_autocast(rows: Tensor) -> tuple[Tensor, torch.dtype]:
    """Rows in the precision that is computed in, and the precision of the result, where autocast is on.

    On a CPU that is single precision whatever autocast asks for: its library makes a program for every new
    shape of a product in half precision, and the shapes of routed work are new in every step. A layer of 8
    experts took four times as long with them.
    """
    kind = rows.device.type
    if kind not in ("cpu", "cuda") or not torch.is_autocast_enabled(kind) or rows.dtype == torch.float64:
        return rows, rows.dtype
    half = torch.get_autocast_dtype(kind)
    return rows.to(torch.float32 if kind == "cpu" else half), half


def _activate(hidden: Tensor, activation: ActivationFunction, gated: bool) -> Tensor:
    if not gated:
        return activation.forward(hidden)
    gate, value = hidden.chunk(2, -1)
    return activation.forward(gate).mul_(value)


def _derive(
    grad: Tensor, hidden: Tensor, activation: ActivationFunction, gated: bool
) -> tuple[Tensor, Tensor]:
    """What :func:`_activate` made of ``hidden``, and the gradient for ``hidden`` of its ``grad``."""
    if not gated:
        return activation.forward(hidden), activation.backward(grad, hidden)
    (gate, value), out = hidden.chunk(2, -1), torch.empty_like(hidden)
    grad_gate, grad_value = out.chunk(2, -1)
    active = activation.forward(gate)
    torch.mul(grad, active, out=grad_value)
    grad_gate.copy_(activation.backward(grad.mul_(value), gate))
    return active.mul_(value), out


class _FeedForward(torch.autograd.Function):
    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,
        rows: Tensor,
        up: Tensor,
        up_bias: Tensor | None,
        down: Tensor,
        down_bias: Tensor | None,
        index: Tensor,
        counts: tuple[int, ...],
        activation: ActivationFunction,
        gated: bool,
        keep: bool,
    ) -> Tensor:
        work = batches(counts, max(up.shape[1:]), 2 * (up[0].numel() + down[0].numel()))
        hidden = [rows.new_empty(*batch.shape, up.shape[2]) for batch in work] if keep else None
        out = rows.new_empty(len(index), down.shape[2])
        for i, batch in enumerate(work):
            x = rows.index_select(0, batch.take(index).flatten()).view(*batch.shape, -1)
            h = batch.product(x, up, up_bias, None if hidden is None else hidden[i])
            active = _activate(h, activation, gated)
            batch.unpad(batch.product(active, down, down_bias, batch.place(out)), out)
        ctx.save_for_backward(rows, up, down, index, *(hidden or ()))
        ctx.work, ctx.activation, ctx.gated = work, activation, gated
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, up, down, index, *hidden = ctx.saved_tensors
        need_rows, *needed = ctx.needs_input_grad[:5]
        grad = grad.contiguous()
        grad_rows = torch.zeros_like(rows) if need_rows else None
        likes = (up, up[:, 0], down, down[:, 0])
        stacks = [
            begin(like) if need else None
            for begin, like, need in zip((StackGradient, bias_gradient) * 2, likes, needed, strict=True)
        ]
        grad_up, grad_up_bias, grad_down, grad_down_bias = stacks
        for batch, h in zip(ctx.work, hidden, strict=True):
            g = batch.pad(grad)
            active, gh = _derive(batch.product(g, down.mT, None), h, ctx.activation, ctx.gated)
            if grad_down is not None:
                grad_down.add_product(batch, active.mT, g)
            if grad_down_bias is not None:
                grad_down_bias.add_rows(batch, g)
            places = batch.take(index).flatten()
            if grad_up is not None:
                x = rows.index_select(0, places).view(*batch.shape, -1)
                grad_up.add_product(batch, x.mT, gh)
            if grad_up_bias is not None:
                grad_up_bias.add_rows(batch, gh)
            if grad_rows is not None:
                gx = batch.product(gh, up.mT, None)
                grad_rows.index_add_(0, places, gx.flatten(0, 1))
        return grad_rows, *(None if s is None else s.done() for s in stacks), None, None, None, None, None
