"""What every bank is: a number of experts, what each costs, and a way to run sorted rows through them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from geomoe.moe.kernels.batches import spans
from geomoe.moe.units import Neighbourhoods

__all__ = ["ExpertBank", "Rows", "exporting", "linear", "size", "stacked_linear"]

Rows = Tensor | Neighbourhoods
"""``[N, ...]`` rows, or pixels with their surroundings."""


class ExpertBank(nn.Module):
    """Base of all banks.

    Attributes:
        group_sizes: experts in each group; ``(E,)`` where there are no groups.
        reach: pixels to each side of a row that an expert looks at.
        shares: whether its experts have parameters in common.
        convolves: whether all are full convolutions, through which many pixels go fastest densely.
    """

    group_sizes: tuple[int, ...]
    reach: int = 0
    shares: bool = False
    convolves: bool = False

    @property
    def num_experts(self) -> int:
        return sum(self.group_sizes)

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def row_flops(self) -> tuple[int, ...]:
        """Floating-point operations of each expert on one row, a multiply and an add counted as two.

        Matrix products and convolutions are counted, as is usual; biases and activations are not.
        """
        raise NotImplementedError

    def expert(self, index: int, rows: Tensor) -> Tensor:
        """Expert ``index`` on its rows ``[n, ...]``, by differentiable operations alone."""
        raise NotImplementedError

    def take(self, rows: Rows, index: Tensor, expert: int) -> Tensor:
        """The rows ``index`` as ``expert`` wants them."""
        assert isinstance(rows, Tensor)
        return rows[index]

    def everywhere(self, index: int, rows: Rows) -> Tensor:
        """Expert ``index`` on all rows, ``[N, ...]``."""
        return self.expert(index, self.take(rows, torch.arange(rows.shape[0], device=device_of(rows)), index))

    def loop(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        """Results ``[m, ...]`` of rows ``index`` ``[m]``, sorted by expert; one expert after the other."""
        done = [self.expert(e, self.take(rows, index[a:b], e)) for e, a, b in spans(counts)]
        return self.with_idle(torch.cat(done) if done else self.nothing(rows), counts)

    def with_idle(self, out: Tensor, counts: tuple[int, ...]) -> Tensor:
        """``out`` as it is, with a gradient of 0, and not none, for the parameters that are :meth:`idle`.

        So data parallelism finds every process ready, and an optimiser treats experts alike whether or not
        they are stacked.
        """
        idle = [p for p in self.idle(counts) if p.requires_grad]
        if not (idle and torch.is_grad_enabled()):
            return out
        beside: Tensor = _Beside.apply(out, *idle)  # type: ignore[no-untyped-call]
        return beside

    def idle(self, counts: tuple[int, ...]) -> list[nn.Parameter]:
        """Parameters of which no expert with rows has a part; none of a stack, as long as one expert has."""
        return [] if any(counts) else list(self.parameters())

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        """As :meth:`loop`, in the fastest way that the bank has."""
        return self.loop(rows, index, counts)

    def windowed(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        """As :meth:`loop`, of convolutions by the windows of an image in which an expert has pixels."""
        raise ValueError("backend='window': expected convolutions on pixels with their surroundings")

    def forward(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        """:meth:`run`."""
        return self.run(rows, index, counts)

    def each(self, rows: Tensor) -> Tensor:
        """Every expert on n rows of its own, ``[E, n, ...]``."""
        if exporting():
            return torch.stack([self.expert(e, rows[e]) for e in range(self.num_experts)])
        number = rows.shape[0] * rows.shape[1]
        index = torch.arange(number, device=rows.device)
        counts = (rows.shape[1],) * self.num_experts
        done = self.run(rows.flatten(0, 1), index, counts)
        return done.view(*rows.shape[:2], *done.shape[1:])

    def nothing(self, rows: Rows) -> Tensor:
        """Results of no row at all."""
        return self.expert(0, self.take(rows, torch.zeros(0, dtype=torch.long, device=device_of(rows)), 0))


def exporting() -> bool:
    """Whether a graph is made that must not hold how many rows each expert got for one input."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return torch.compiler.is_exporting() or bool(tracing)


class _Beside(torch.autograd.Function):
    """``out`` as it is; the parameters beside it get a gradient of 0."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad, *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)


def device_of(rows: Rows) -> torch.device:
    return rows.flat.device if isinstance(rows, Neighbourhoods) else rows.device


def size(*stacks: Tensor) -> int:
    """Elements that one expert holds of stacks ``[E, ...]``, which may be spread over processes."""
    return sum(math.prod(stack.shape[1:]) for stack in stacks)


def stacked_linear(
    num: int, inputs: int, outputs: int, bias: bool = True
) -> tuple[nn.Parameter, nn.Parameter | None]:
    """Weights ``[num, inputs, outputs]`` and biases ``[num, outputs]``, each drawn as nn.Linear's."""
    bound = 1 / math.sqrt(inputs)
    weight = nn.Parameter(torch.empty(num, inputs, outputs).uniform_(-bound, bound))
    return weight, nn.Parameter(torch.empty(num, outputs).uniform_(-bound, bound)) if bias else None


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``rows @ weight + bias`` in the precision of the rows."""
    if bias is None:
        return rows @ weight.to(rows.dtype)
    return torch.addmm(bias.to(rows.dtype), rows, weight.to(rows.dtype))
