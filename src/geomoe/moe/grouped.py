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
from geomoe.moe.batches import Batch, StackGradient, batches
from geomoe.moe.blocks import in_autocast, without_autocast

__all__ = ["Group", "grouped_linear", "routed_products"]

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
        parts, groups = _parts(layout), _inputs(flat, centres, layout, weights)
        for part, inputs, weight, bias in zip(parts, groups, weights, biases, strict=True):
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
        parts, inputs = _parts(ctx.layout), _inputs(flat, centres, ctx.layout, weights)
        for i, weight in enumerate(weights):
            need_weight, need_bias = ctx.needs_input_grad[3 + 2 * i : 5 + 2 * i]
            grads += _backward(grad[parts[i]], grad_flat, inputs[i], weight, need_weight, need_bias)
        return grad_flat, None, None, *grads


def _parts(layout: Layout) -> list[slice]:
    ends = [0, *accumulate(sum(counts) for _, counts in layout)]
    return [slice(a, b) for a, b in pairwise(ends)]


def _inputs(
    flat: Tensor, centres: Tensor | None, layout: Layout, weights: Sequence[Tensor]
) -> list[_Inputs]:
    return [
        _Inputs(flat, part, None if centres is None else centres[part], offsets, counts, weight)
        for part, (offsets, counts), weight in zip(_parts(layout), layout, weights, strict=True)
    ]


def _forward(out: Tensor, inputs: _Inputs, weight: Tensor, bias: Tensor | None) -> None:
    if kernels.available_for(out):
        kernels.routed_product(
            inputs.flat, weight, bias, inputs.centres, inputs.offsets, inputs.counts, out=out
        )
        return
    for batch in inputs.work:
        x = inputs.gather(batch, inputs.index(batch))
        batch.unpad(batch.product(x, weight, bias, batch.place(out)), out)


def _backward(
    grad: Tensor,
    grad_flat: Tensor | None,
    inputs: _Inputs,
    weight: Tensor,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weight and bias; adds to ``grad_flat``."""
    if kernels.available_for(grad):
        grad_weight = grad_bias = None
        if need_weight:
            grad_weight = kernels.weight_gradient(
                inputs.flat, grad, inputs.centres, inputs.offsets, inputs.counts
            )
        if need_bias:
            grad_bias = torch.stack([mine.sum(0) for mine in grad.split(inputs.counts)])
        if grad_flat is not None:
            columns = kernels.routed_product(grad, weight.mT, None, None, (0,), inputs.counts)
            inputs.scatter(grad_flat, inputs.every_index(), columns)
        return grad_weight, grad_bias
    weights = StackGradient(weight) if need_weight else None
    biases = StackGradient(weight[:, 0]) if need_bias else None
    for batch in inputs.work:
        g, index = batch.pad(grad), inputs.index(batch)
        if weights is not None:
            weights.add_product(batch, inputs.gather(batch, index).mT, g)
        if biases is not None:
            biases.add(batch, g.sum(1))
        if grad_flat is not None:
            columns = batch.product(g, weight.mT, None, inputs.room(batch))
            inputs.scatter(grad_flat, index, columns)
    return None if weights is None else weights.done(), None if biases is None else biases.done()


class _Inputs:
    """The inputs of a group's rows, gathered into one buffer, and gradients scattered back."""

    def __init__(
        self,
        flat: Tensor,
        part: slice,
        centres: Tensor | None,
        offsets: tuple[int, ...],
        counts: tuple[int, ...],
        weight: Tensor,
    ) -> None:
        self.flat, self.offsets, self.counts = flat, offsets, counts
        self.centres = torch.arange(part.start, part.stop, device=flat.device) if centres is None else centres
        self.steps = torch.tensor(offsets, device=flat.device)
        self.width = len(offsets) * flat.shape[1]
        self.work = batches(counts, self.width, 2 * weight[0].numel())
        self.buffer: Tensor | None = None

    def every_index(self) -> Tensor:
        """``[m * T]``, the places in ``flat`` that inputs are taken from."""
        return (self.centres[:, None] + self.steps).flatten()

    def index(self, batch: Batch) -> Tensor:
        """``[runs * places * T]``, those of a batch."""
        centres = batch.take(self.centres)
        return (centres if self.offsets == (0,) else centres[:, :, None] + self.steps).flatten()

    def room(self, batch: Batch) -> Tensor:
        """``[runs, places, T * C]``, the buffer; what it held is lost."""
        runs, places = batch.shape
        size = runs * places * self.width
        if self.buffer is None or len(self.buffer) < size:
            largest = max(batch.shape[0] * batch.shape[1] for batch in self.work)
            self.buffer = self.flat.new_empty(largest * self.width)
        return self.buffer[:size].view(runs, places, self.width)

    def gather(self, batch: Batch, index: Tensor) -> Tensor:
        """Inputs ``[runs, places, T * C]``, in the buffer."""
        out = self.room(batch)
        torch.index_select(self.flat, 0, index, out=out.view(-1, self.flat.shape[1]))
        return out

    def scatter(self, target: Tensor, index: Tensor, columns: Tensor) -> None:
        """Add ``columns``, whose rows are T * C wide, to where those inputs came from."""
        target.index_add_(0, index, columns.view(-1, self.flat.shape[1]))
