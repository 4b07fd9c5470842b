"""Products of many small matrices at once: the arithmetic of a bank, expert by expert, without waste.

Rows come sorted by expert. Writing results where they belong (``out=``) saves the copies that a loop over
autograd's operations makes, and gradients of stacked weights are written slice by slice: indexing a stack
in a loop would make each expert's backward fill a whole stack.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["grouped_linear", "routed_convolution"]

_CACHE = 1 << 18
"""Elements of gathered neighbourhoods at a time (1 MB of float32): they are read again from the cache."""


def spans(counts: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Expert, first and last row for every expert that has rows."""
    found, start = [], 0
    for expert, count in enumerate(counts):
        if count:
            found.append((expert, start, start + count))
        start += count
    return found


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, counts: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.counts, ctx.biased = counts, bias is not None
        out = rows.new_empty(len(rows), weight.shape[2])
        for e, start, end in spans(counts):
            if bias is None:
                torch.mm(rows[start:end], weight[e], out=out[start:end])
            else:
                torch.addmm(bias[e], rows[start:end], weight[e], out=out[start:end])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        grad = grad.contiguous()
        need_rows, need_weight, need_bias, _ = ctx.needs_input_grad
        grad_rows = torch.empty_like(rows) if need_rows else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        grad_bias = weight.new_zeros(weight.shape[0], weight.shape[2]) if need_bias else None
        for e, start, end in spans(ctx.counts):
            g = grad[start:end]
            if grad_rows is not None:
                torch.mm(g, weight[e].T, out=grad_rows[start:end])
            if grad_weight is not None:
                torch.mm(rows[start:end].T, g, out=grad_weight[e])
            if grad_bias is not None:
                torch.sum(g, 0, out=grad_bias[e])
        return grad_rows, grad_weight, grad_bias, None


def grouped_linear(rows: Tensor, weight: Tensor, bias: Tensor | None, counts: tuple[int, ...]) -> Tensor:
    """``rows @ weight[e] + bias[e]``, e the expert of each row.

    Args:
        rows: ``[m, I]``, sorted by expert.
        weight: ``[E, I, O]``.
        bias: ``[E, O]`` or None.
        counts: rows of each expert; sums to m.

    Returns:
        ``[m, O]``.

    Raises:
        ValueError: counts that are not those of the rows.
    """
    if sum(counts) != len(rows) or len(counts) != len(weight):
        raise ValueError(
            f"counts: {len(counts)} experts and {sum(counts)} rows, expected {len(weight)} and {len(rows)}"
        )
    weight = weight.to(rows.dtype)
    bias = None if bias is None else bias.to(rows.dtype)
    out: Tensor = _GroupedLinear.apply(rows, weight, bias, counts)  # type: ignore[no-untyped-call]
    return out


class _RoutedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        flat: Tensor,
        weight: Tensor,
        bias: Tensor,
        centres: Tensor,
        offsets: tuple[int, ...],
        counts: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(flat, weight, centres)
        ctx.offsets, ctx.counts = offsets, counts
        out = flat.new_empty(len(centres), weight.shape[2])
        taps = _Taps(flat, offsets, len(centres))
        for e, start, end in spans(counts):
            for a, b in taps.chunks(start, end):
                torch.addmm(bias[e], taps.gather(centres[a:b]), weight[e], out=out[a:b])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, centres = ctx.saved_tensors
        grad = grad.contiguous()
        need_flat, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_flat = torch.zeros_like(flat) if need_flat else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        grad_bias = weight.new_zeros(weight.shape[0], weight.shape[2]) if need_bias else None
        taps = _Taps(flat, ctx.offsets, len(centres))
        for e, start, end in spans(ctx.counts):
            for a, b in taps.chunks(start, end):
                g = grad[a:b]
                if grad_weight is not None:
                    torch.addmm(grad_weight[e], taps.gather(centres[a:b]).T, g, out=grad_weight[e])
                if grad_flat is not None:
                    taps.scatter(grad_flat, centres[a:b], g @ weight[e].T)
            if grad_bias is not None:
                torch.sum(grad[start:end], 0, out=grad_bias[e])
        return grad_flat, grad_weight, grad_bias, None, None, None


class _Taps:
    """Neighbourhoods gathered into one buffer that is used again and again, and scattered back."""

    def __init__(self, flat: Tensor, offsets: tuple[int, ...], most: int) -> None:
        self.flat, self.width = flat, flat.shape[1]
        self.offsets = torch.tensor(offsets, device=flat.device)
        self.rows = max(min(_CACHE // (len(offsets) * self.width), most), 1)
        self.buffer = flat.new_empty(self.rows * len(offsets), self.width)

    def chunks(self, start: int, end: int) -> list[tuple[int, int]]:
        return [(a, min(a + self.rows, end)) for a in range(start, end, self.rows)]

    def index(self, centres: Tensor) -> Tensor:
        return (centres[:, None] + self.offsets).flatten()

    def gather(self, centres: Tensor) -> Tensor:
        """``[n, k * k * C]``; valid until the next call."""
        out = self.buffer[: len(centres) * len(self.offsets)]
        torch.index_select(self.flat, 0, self.index(centres), out=out)
        return out.view(len(centres), -1)

    def scatter(self, target: Tensor, centres: Tensor, columns: Tensor) -> None:
        """Add ``columns`` ``[n, k * k * C]`` to the pixels that they were gathered from."""
        index = self.index(centres)[:, None].expand(-1, self.width)
        target.scatter_add_(0, index, columns.view(-1, self.width))


def routed_convolution(
    flat: Tensor,
    weight: Tensor,
    bias: Tensor,
    centres: Tensor,
    offsets: tuple[int, ...],
    counts: tuple[int, ...],
) -> Tensor:
    """One convolution for each chosen pixel, by the expert that it was given.

    Args:
        flat: ``[P, C]`` the padded image (:class:`geomoe.moe.units.Neighbourhoods`).
        weight: ``[E, k * k * C, O]``, kernel position first.
        bias: ``[E, O]``.
        centres: ``[m]`` where in ``flat`` each chosen pixel lies; sorted by expert.
        offsets: steps from a pixel to its k * k surroundings.
        counts: pixels of each expert; sums to m.

    Returns:
        ``[m, O]``.
    """
    out: Tensor = _RoutedConvolution.apply(  # type: ignore[no-untyped-call]
        flat, weight.to(flat.dtype), bias.to(flat.dtype), centres, offsets, counts
    )
    return out
