"""Products of many small matrices at once: the arithmetic of a bank, expert by expert, without waste.

Rows come sorted by expert. On a CPU their inputs are gathered a cache-full at a time, multiplied while they
are there, and the results written where they belong; gradients of stacked weights are written slice by
slice (indexing a stack in a loop would make each expert's backward fill a whole stack). On CUDA one kernel
does all experts (:mod:`geomoe.moe.kernels`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geomoe.moe import kernels
from geomoe.moe.blocks import spans

__all__ = ["grouped_linear", "routed_product"]

_CACHE = 1 << 18
"""Elements of gathered inputs at a time (1 MB of float32): they are read again from the cache."""


def grouped_linear(rows: Tensor, weight: Tensor, bias: Tensor | None, counts: tuple[int, ...]) -> Tensor:
    """``rows @ weight[e] + bias[e]``, e the expert of each row.

    Args:
        rows: ``[m, I]``, sorted by expert.
        weight: ``[E, I, O]``.
        bias: ``[E, O]`` or None.
        counts: rows of each expert; sums to m.

    Returns:
        ``[m, O]``.
    """
    return routed_product(rows, weight, bias, None, (0,), counts)


def routed_product(
    flat: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    centres: Tensor | None,
    offsets: tuple[int, ...],
    counts: tuple[int, ...],
) -> Tensor:
    """Each row's input, or its k * k surroundings in an image, times the weight of the expert that it was
    given.

    ``out[r] = concat_t(flat[centres[r] + offsets[t]]) @ weight[e(r)] + bias[e(r)]``.

    Args:
        flat: ``[P, C]`` rows, or the padded image of :class:`geomoe.moe.units.Neighbourhoods`.
        weight: ``[E, T * C, O]``, kernel position first.
        bias: ``[E, O]`` or None.
        centres: ``[m]`` where in ``flat`` each row's input lies, sorted by expert; None where ``flat`` is
        sorted itself.
        offsets: T steps from there to its surroundings; ``(0,)`` for none.
        counts: rows of each expert; sums to m.

    Returns:
        ``[m, O]``.

    Raises:
        ValueError: counts that are not those of the rows.
    """
    rows = flat.shape[0] if centres is None else centres.shape[0]
    if sum(counts) != rows or len(counts) != len(weight):
        raise ValueError(
            f"counts: {len(counts)} experts and {sum(counts)} rows, expected {len(weight)} and {rows}"
        )
    weight = weight.to(flat.dtype)
    bias = None if bias is None else bias.to(flat.dtype)
    out: Tensor = _Products.apply(flat, weight, bias, centres, offsets, counts)  # type: ignore[no-untyped-call]
    return out


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        flat: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        centres: Tensor | None,
        offsets: tuple[int, ...],
        counts: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(flat, weight, centres)
        ctx.offsets, ctx.counts = offsets, counts
        if kernels.available_for(flat):
            return kernels.routed_product(flat, weight, bias, centres, offsets, counts)
        inputs = _Inputs(flat, centres, offsets)
        out = flat.new_empty(inputs.rows, weight.shape[2])
        for e, start, end in spans(counts):
            for a, b in inputs.chunks(start, end):
                if bias is None:
                    torch.mm(inputs.gather(a, b), weight[e], out=out[a:b])
                else:
                    torch.addmm(bias[e], inputs.gather(a, b), weight[e], out=out[a:b])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, centres = ctx.saved_tensors
        grad, counts = grad.contiguous(), ctx.counts
        need_flat, need_weight, need_bias = ctx.needs_input_grad[:3]
        inputs = _Inputs(flat, centres, ctx.offsets)
        fast = kernels.available_for(flat)
        grad_flat = torch.zeros_like(flat) if need_flat else None
        grad_weight = torch.zeros_like(weight) if need_weight and not fast else None
        grad_bias = weight.new_zeros(weight.shape[0], weight.shape[2]) if need_bias else None
        if fast and need_weight:
            grad_weight = kernels.weight_gradient(flat, grad, centres, ctx.offsets, counts)
        if fast and grad_flat is not None:
            columns = kernels.routed_product(grad, weight.transpose(1, 2), None, None, (0,), counts)
            inputs.scatter(grad_flat, 0, inputs.rows, columns)
        for e, start, end in spans(counts):
            if grad_bias is not None:
                torch.sum(grad[start:end], 0, out=grad_bias[e])
            if fast:
                continue
            for a, b in inputs.chunks(start, end):
                if grad_weight is not None:
                    torch.addmm(grad_weight[e], inputs.gather(a, b).T, grad[a:b], out=grad_weight[e])
                if grad_flat is not None:
                    inputs.scatter(grad_flat, a, b, grad[a:b] @ weight[e].T)
        return grad_flat, grad_weight, grad_bias, None, None, None


class _Inputs:
    """The rows' inputs, gathered into one buffer that is used again, and gradients scattered back."""

    def __init__(self, flat: Tensor, centres: Tensor | None, offsets: tuple[int, ...]) -> None:
        self.flat, self.centres, self.width = flat, centres, flat.shape[1]
        self.rows = flat.shape[0] if centres is None else centres.shape[0]
        self.offsets = torch.tensor(offsets, device=flat.device)
        self.most = max(_CACHE // (len(offsets) * self.width), 1)
        self.buffer: Tensor | None = None

    def chunks(self, start: int, end: int) -> list[tuple[int, int]]:
        if self.centres is None:
            return [(start, end)]
        return [(a, min(a + self.most, end)) for a in range(start, end, self.most)]

    def index(self, a: int, b: int) -> Tensor:
        assert self.centres is not None
        return (self.centres[a:b, None] + self.offsets).flatten()

    def gather(self, a: int, b: int) -> Tensor:
        """Inputs ``[b - a, T * C]`` of sorted rows a to b; valid until the next call."""
        if self.centres is None:
            return self.flat[a:b]
        if self.buffer is None:
            self.buffer = self.flat.new_empty(min(self.most, self.rows) * len(self.offsets), self.width)
        out = self.buffer[: (b - a) * len(self.offsets)]
        torch.index_select(self.flat, 0, self.index(a, b), out=out)
        return out.view(b - a, -1)

    def scatter(self, target: Tensor, a: int, b: int, columns: Tensor) -> None:
        """Add ``columns`` ``[b - a, T * C]`` to where the inputs of rows a to b came from."""
        if self.centres is None:
            target[a:b] = columns
            return
        index = self.index(a, b)[:, None].expand(-1, self.width)
        target.scatter_add_(0, index, columns.view(-1, self.width))
