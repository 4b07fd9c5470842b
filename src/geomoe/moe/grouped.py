"""Products of many small matrices at once: the arithmetic of a bank, expert by expert, without waste.

Rows come sorted by expert. On a CPU their inputs are gathered a cache-full at a time, multiplied while they
are there, and the results written where they belong; gradients of stacked weights are written slice by
slice (indexing a stack in a loop would make each expert's backward fill a whole stack). On CUDA one kernel
does all experts (:mod:`geomoe.moe.kernels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geomoe.moe import kernels
from geomoe.moe.blocks import StackGradient, in_autocast, spans, without_autocast

__all__ = ["Group", "grouped_linear", "routed_products"]

_CACHE = 1 << 18
"""Elements of gathered inputs at a time (1 MB of float32): they are read again from the cache."""


@dataclass(frozen=True)
class Group:
    """Experts of one shape, and the rows that are theirs.

    Attributes:
        weight: ``[E, T * C, O]``, kernel position first.
        bias: ``[E, O]`` or None.
        offsets: T steps in the image from a row's place to its surroundings; ``(0,)`` for none.
        counts: rows of each expert.
    """

    weight: Tensor
    bias: Tensor | None
    offsets: tuple[int, ...]
    counts: tuple[int, ...]


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
    return routed_products(rows, None, [Group(weight, bias, (0,), counts)])


def routed_products(flat: Tensor, centres: Tensor | None, groups: Sequence[Group]) -> Tensor:
    """Each row's input, or its k * k surroundings in an image, times the weight of the row's expert.

    ``out[r] = concat_t(flat[centres[r] + offsets[t]]) @ weight[e(r)] + bias[e(r)]``.

    Args:
        flat: ``[P, C]`` rows, or the padded image of :class:`geomoe.moe.units.Neighbourhoods`.
        centres: ``[m]`` where in ``flat`` each row's input lies, sorted by expert; None where ``flat`` is
        sorted.
        groups: the experts, in the order of the rows.

    Returns:
        ``[m, O]``.

    Raises:
        ValueError: counts that are not those of the rows.
    """
    rows = flat.shape[0] if centres is None else centres.shape[0]
    given = sum(sum(group.counts) for group in groups)
    if given != rows or any(len(group.counts) != len(group.weight) for group in groups):
        raise ValueError(f"counts: {given} rows, expected {rows}, and one for each expert")
    flat = in_autocast(flat)
    tensors = [
        None if t is None else t.to(flat.dtype) for group in groups for t in (group.weight, group.bias)
    ]
    layout = tuple((group.offsets, group.counts) for group in groups)
    out: Tensor = _Products.apply(flat, centres, layout, *tensors)  # type: ignore[no-untyped-call]
    return out


Layout = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


class _Products(torch.autograd.Function):
    @staticmethod
    @without_autocast
    def forward(
        ctx: Any, flat: Tensor, centres: Tensor | None, layout: Layout, *tensors: Tensor | None
    ) -> Tensor:
        weights, biases = tensors[::2], tensors[1::2]
        ctx.save_for_backward(flat, centres, *weights)
        ctx.layout = layout
        first = weights[0]
        assert first is not None
        rows = flat.shape[0] if centres is None else centres.shape[0]
        out = flat.new_empty(rows, first.shape[2])
        for part, inputs, weight, bias in zip(
            _parts(layout), _inputs(flat, centres, layout), weights, biases, strict=True
        ):
            assert weight is not None
            _forward(out[part], inputs, weight, bias)
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, centres, *weights = ctx.saved_tensors
        grad = grad.contiguous()
        grad_flat = torch.zeros_like(flat) if ctx.needs_input_grad[0] else None
        grads: list[Tensor | None] = []
        parts, inputs = _parts(ctx.layout), _inputs(flat, centres, ctx.layout)
        for i, weight in enumerate(weights):
            need_weight, need_bias = ctx.needs_input_grad[3 + 2 * i : 5 + 2 * i]
            grads += _backward(grad[parts[i]], grad_flat, inputs[i], weight, need_weight, need_bias)
        return grad_flat, None, None, *grads


def _parts(layout: Layout) -> list[slice]:
    ends = [0, *accumulate(sum(counts) for _, counts in layout)]
    return [slice(a, b) for a, b in pairwise(ends)]


def _inputs(flat: Tensor, centres: Tensor | None, layout: Layout) -> list[_Inputs]:
    if centres is None:
        return [_Inputs(flat, None, offsets, counts) for offsets, counts in layout]
    return [
        _Inputs(flat, centres[part], offsets, counts)
        for part, (offsets, counts) in zip(_parts(layout), layout, strict=True)
    ]


def _forward(out: Tensor, inputs: _Inputs, weight: Tensor, bias: Tensor | None) -> None:
    if kernels.available_for(out):
        kernels.routed_product(
            inputs.flat, weight, bias, inputs.centres, inputs.offsets, inputs.counts, out=out
        )
        return
    for e, a, b in inputs.chunks():
        if bias is None:
            torch.mm(inputs.gather(a, b), weight[e], out=out[a:b])
        else:
            torch.addmm(bias[e], inputs.gather(a, b), weight[e], out=out[a:b])


def _backward(
    grad: Tensor,
    grad_flat: Tensor | None,
    inputs: _Inputs,
    weight: Tensor,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weight and bias; adds to ``grad_flat``."""
    grad_bias = None
    if need_bias:
        grad_bias = weight.new_zeros(weight.shape[0], weight.shape[2])
        for e, start, end in spans(inputs.counts):
            torch.sum(grad[start:end], 0, out=grad_bias[e])
    if kernels.available_for(grad):
        grad_weight = None
        if need_weight:
            grad_weight = kernels.weight_gradient(
                inputs.flat, grad, inputs.centres, inputs.offsets, inputs.counts
            )
        if grad_flat is not None:
            columns = kernels.routed_product(grad, weight.transpose(1, 2), None, None, (0,), inputs.counts)
            inputs.scatter(grad_flat, 0, inputs.rows, columns)
        return grad_weight, grad_bias
    sums = StackGradient(weight) if need_weight else None
    for e, a, b in inputs.chunks():
        if sums is not None:
            sums.add_product(e, inputs.gather(a, b).T, grad[a:b])
        if grad_flat is not None:
            inputs.scatter(grad_flat, a, b, grad[a:b] @ weight[e].T)
    return None if sums is None else sums.done(), grad_bias


class _Inputs:
    """The inputs of a group's rows, gathered into one buffer, and gradients scattered back."""

    def __init__(
        self, flat: Tensor, centres: Tensor | None, offsets: tuple[int, ...], counts: tuple[int, ...]
    ) -> None:
        self.flat, self.centres, self.width = flat, centres, flat.shape[1]
        self.offsets, self.counts, self.rows = offsets, counts, sum(counts)
        self.steps = torch.tensor(offsets, device=flat.device)
        self.most = max(_CACHE // (len(offsets) * self.width), 1)
        self.buffer: Tensor | None = None

    def chunks(self) -> list[tuple[int, int, int]]:
        """Expert, first and last row of every piece of work."""
        if self.centres is None:
            return spans(self.counts)
        return [
            (e, a, min(a + self.most, end))
            for e, start, end in spans(self.counts)
            for a in range(start, end, self.most)
        ]

    def index(self, a: int, b: int) -> Tensor:
        assert self.centres is not None
        if self.offsets == (0,):
            return self.centres[a:b]
        return (self.centres[a:b, None] + self.steps).flatten()

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
