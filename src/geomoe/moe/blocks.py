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
from torch.autograd.function import once_differentiable

__all__ = [
    "ACTIVATIONS",
    "ActivationFunction",
    "StackGradient",
    "feed_forward",
    "in_autocast",
    "spans",
    "without_autocast",
]

_CACHE = 1 << 18
"""Elements of hidden rows at a time (1 MB of float32)."""


Method = TypeVar("Method", bound=Callable[..., Any])


def without_autocast(method: Method) -> Method:
    """An autograd function's forward or backward that computes in the precision of what it is given."""

    @wraps(method)
    def plain(ctx: Any, first: Tensor, *args: Any) -> Any:
        with torch.autocast(first.device.type, enabled=False):
            return method(ctx, first, *args)

    return cast(Method, plain)


def spans(counts: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Expert, first and last row for every expert that has rows."""
    found, start = [], 0
    for expert, count in enumerate(counts):
        if count:
            found.append((expert, start, start + count))
        start += count
    return found


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
    rows = in_autocast(rows)
    weights = [None if w is None else w.to(rows.dtype) for w in (up, up_bias, down, down_bias)]
    out: Tensor = _FeedForward.apply(rows, *weights, index, counts, activation, gated)  # type: ignore[no-untyped-call]
    return out


def in_autocast(rows: Tensor) -> Tensor:
    """Rows in the precision that autocast computes in, where it is on."""
    kind = rows.device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind) and rows.dtype == torch.float32:
        return rows.to(torch.get_autocast_dtype(kind))
    return rows


def _activate(hidden: Tensor, activation: ActivationFunction, gated: bool) -> Tensor:
    if not gated:
        return activation.forward(hidden)
    gate, value = hidden.chunk(2, -1)
    return activation.forward(gate).mul_(value)


def _deactivate(grad: Tensor, hidden: Tensor, activation: ActivationFunction, gated: bool) -> Tensor:
    """Gradient for ``hidden`` of ``grad`` for what :func:`_activate` made of it."""
    if not gated:
        return activation.backward(grad, hidden)
    gate, value = hidden.chunk(2, -1)
    return torch.cat([activation.backward(grad * value, gate), grad * activation.forward(gate)], -1)


def _affine(bias: Tensor | None, expert: int, rows: Tensor, weight: Tensor, out: Tensor) -> None:
    if bias is None:
        torch.mm(rows, weight[expert], out=out)
    else:
        torch.addmm(bias[expert], rows, weight[expert], out=out)


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
    ) -> Tensor:
        hidden = rows.new_empty(len(index), up.shape[2])
        out = rows.new_empty(len(index), down.shape[2])
        for e, a, b in _chunks(counts, up.shape[2]):
            _affine(up_bias, e, rows.index_select(0, index[a:b]), up, hidden[a:b])
            _affine(down_bias, e, _activate(hidden[a:b], activation, gated), down, out[a:b])
        ctx.save_for_backward(rows, up, down, index, hidden)
        ctx.counts, ctx.activation, ctx.gated = counts, activation, gated
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, up, down, index, hidden = ctx.saved_tensors
        need_rows, need_up, need_up_bias, need_down, need_down_bias = ctx.needs_input_grad[:5]
        grad = grad.contiguous()
        grad_rows = torch.zeros_like(rows) if need_rows else None
        grad_up = StackGradient(up) if need_up else None
        grad_down = StackGradient(down) if need_down else None
        grad_up_bias = StackGradient(up[:, 0]) if need_up_bias else None
        grad_down_bias = StackGradient(down[:, 0]) if need_down_bias else None
        for e, a, b in _chunks(ctx.counts, up.shape[2]):
            h, g = hidden[a:b], grad[a:b]
            if grad_down is not None:
                grad_down.add_product(e, _activate(h, ctx.activation, ctx.gated).T, g)
            if grad_down_bias is not None:
                grad_down_bias.add(e, g.sum(0))
            gh = _deactivate(g @ down[e].T, h, ctx.activation, ctx.gated)
            if grad_up is not None:
                grad_up.add_product(e, rows.index_select(0, index[a:b]).T, gh)
            if grad_up_bias is not None:
                grad_up_bias.add(e, gh.sum(0))
            if grad_rows is not None:
                gx = gh @ up[e].T
                grad_rows.scatter_add_(0, index[a:b, None].expand_as(gx), gx)
        sums = (grad_up, grad_up_bias, grad_down, grad_down_bias)
        return grad_rows, *(None if s is None else s.done() for s in sums), None, None, None, None


def _chunks(counts: tuple[int, ...], width: int) -> list[tuple[int, int, int]]:
    most = max(_CACHE // width, 1)
    return [(e, a, min(a + most, end)) for e, start, end in spans(counts) for a in range(start, end, most)]


class StackGradient:
    """Gradients of a stack, expert by expert. First terms are written and not added: nothing is cleared."""

    def __init__(self, like: Tensor) -> None:
        self.total = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        self.begun = [False] * len(like)

    def add_product(self, expert: int, a: Tensor, b: Tensor) -> None:
        """Add ``a @ b`` to the gradient of ``expert``."""
        if self.begun[expert]:
            self.total[expert].addmm_(a, b)
        else:
            torch.mm(a, b, out=self.total[expert])
            self.begun[expert] = True

    def add(self, expert: int, term: Tensor) -> None:
        """Add ``term`` to the gradient of ``expert``."""
        if self.begun[expert]:
            self.total[expert] += term
        else:
            self.total[expert] = term
            self.begun[expert] = True

    def done(self) -> Tensor:
        """The gradient; 0 for experts without rows."""
        for expert, begun in enumerate(self.begun):
            if not begun:
                self.total[expert] = 0
        return self.total
