"""Products of many small matrices at once: the arithmetic of a bank, batch by batch, without waste.

Rows come sorted by expert. On a CPU their inputs are gathered a cache-full at a time (:mod:`.batches`),
multiplied while they are there, and the results written where they belong; so are the gradients of stacked
weights (indexing a stack in a loop would make each expert's backward fill a whole stack). On CUDA one kernel
does all experts (:mod:`.launch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from geomoe.moe.kernels import launch
from geomoe.moe.kernels.batches import Batch, StackGradient, batches, bias_gradient
from geomoe.moe.kernels.blocks import in_autocast, once_differentiable, without_autocast

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
    flat, kind = in_autocast(flat)
    tensors = [
        None if t is None else t.to(flat.dtype) for group in groups for t in (group.weight, group.bias)
    ]
    layout = tuple((group.offsets, group.counts) for group in groups)
    out: Tensor = _Products.apply(flat, centres, layout, *tensors)  # type: ignore[no-untyped-call]
    return out.to(kind)


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
        groups = _groups(flat, centres, layout, weights)
        rows = flat.shape[0] if centres is None else centres.shape[0]
        out = flat.new_empty(rows, groups[0].weight.shape[2])
        for group, bias in zip(groups, biases, strict=True):
            group.multiply(bias, out[group.part])
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, centres, *weights = ctx.saved_tensors
        grad = grad.contiguous()
        grad_flat = torch.zeros_like(flat) if ctx.needs_input_grad[0] else None
        grads: list[Tensor | None] = []
        for i, group in enumerate(_groups(flat, centres, ctx.layout, weights)):
            need_weight, need_bias = ctx.needs_input_grad[3 + 2 * i : 5 + 2 * i]
            grads += group.gradients(grad[group.part], grad_flat, need_weight, need_bias)
        return grad_flat, None, None, *grads


def _groups(
    flat: Tensor, centres: Tensor | None, layout: Layout, weights: Sequence[Tensor | None]
) -> list[_Work]:
    found, start = [], 0
    for (offsets, counts), weight in zip(layout, weights, strict=True):
        assert weight is not None
        part = slice(start, start + sum(counts))
        found.append(_Work(flat, centres, part, offsets, counts, weight))
        start = part.stop
    return found


class _Work:
    """What there is to do for a group: rows ``part`` of all, and where in ``flat`` their inputs lie."""

    def __init__(
        self,
        flat: Tensor,
        centres: Tensor | None,
        part: slice,
        offsets: tuple[int, ...],
        counts: tuple[int, ...],
        weight: Tensor,
    ) -> None:
        self.flat, self.part, self.offsets, self.counts, self.weight = flat, part, offsets, counts, weight
        self.centres = None if centres is None else centres[part]
        self.steps = torch.tensor(offsets, device=flat.device)
        self.buffer: Tensor | None = None

    @cached_property
    def batches(self) -> list[Batch]:
        return batches(self.counts, max(self.weight.shape[1:]), 2 * self.weight[0].numel())

    def multiply(self, bias: Tensor | None, out: Tensor) -> None:
        """Write the results of the group's rows to ``out``."""
        if launch.available_for(out):
            flat = self.flat[self.part] if self.centres is None else self.flat
            launch.routed_product(flat, self.weight, bias, self.centres, self.offsets, self.counts, out=out)
            return
        for batch in self.batches:
            x = self.gather(batch, self.index(batch))
            batch.unpad(batch.product(x, self.weight, bias, batch.place(out)), out)

    def gradients(
        self, grad: Tensor, grad_flat: Tensor | None, need_weight: bool, need_bias: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of weight and bias, from the one of the results; adds to ``grad_flat``."""
        if launch.available_for(grad):
            return self._kernel_gradients(grad, grad_flat, need_weight, need_bias)
        weights = StackGradient(self.weight) if need_weight else None
        biases = bias_gradient(self.weight[:, 0]) if need_bias else None
        for batch in self.batches:
            g, index = batch.pad(grad), self.index(batch)
            if weights is not None:
                weights.add_product(batch, self.gather(batch, index).mT, g)
            if biases is not None:
                biases.add_rows(batch, g)
            if grad_flat is None:
                continue
            if index is None:
                batch.write(batch.product(g, self.weight.mT, None), grad_flat[self.part])
            else:
                columns = batch.product(g, self.weight.mT, None, self.room(batch))
                grad_flat.index_add_(0, index, columns.view(-1, grad_flat.shape[1]))
        return None if weights is None else weights.done(), None if biases is None else biases.done()

    def _kernel_gradients(
        self, grad: Tensor, grad_flat: Tensor | None, need_weight: bool, need_bias: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_weight = grad_bias = None
        if need_weight:
            flat = self.flat[self.part] if self.centres is None else self.flat
            grad_weight = launch.weight_gradient(flat, grad, self.centres, self.offsets, self.counts)
        if need_bias:
            grad_bias = torch.stack([mine.sum(0) for mine in grad.split(self.counts)])
        if grad_flat is not None:
            columns = launch.routed_product(grad, self.weight.mT, None, None, (0,), self.counts)
            if self.centres is None:
                grad_flat[self.part] = columns
            else:
                index = (self.centres[:, None] + self.steps).flatten()
                grad_flat.index_add_(0, index, columns.view(-1, grad_flat.shape[1]))
        return grad_weight, grad_bias

    def index(self, batch: Batch) -> Tensor | None:
        """``[runs * places * T]``, where in ``flat`` a batch's inputs lie; None where ``flat`` is sorted."""
        if self.centres is None:
            return None
        centres = batch.take(self.centres)
        return (centres if self.offsets == (0,) else centres[:, :, None] + self.steps).flatten()

    def gather(self, batch: Batch, index: Tensor | None) -> Tensor:
        """Inputs ``[runs, places, T * C]``, valid until the next call."""
        if index is None:
            return batch.pad(self.flat[self.part])
        out = self.room(batch)
        torch.index_select(self.flat, 0, index, out=out.view(-1, self.flat.shape[1]))
        return out

    def room(self, batch: Batch) -> Tensor:
        """``[runs, places, T * C]``, one buffer for all batches; what it held is lost."""
        (runs, places), width = batch.shape, self.weight.shape[1]
        if self.buffer is None:
            largest = max(batch.shape[0] * batch.shape[1] for batch in self.batches)
            self.buffer = self.flat.new_empty(largest * width)
        return self.buffer[: runs * places * width].view(runs, places, width)
