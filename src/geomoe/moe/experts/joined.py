"""Banks put together: unlike experts in one, and experts that cost nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from geomoe.moe.experts.bank import ExpertBank, Rows, linear, size, stacked_linear
from geomoe.moe.experts.rows import Activation
from geomoe.moe.kernels.blocks import ACTIVATIONS
from geomoe.moe.kernels.grouped import Group, routed_products

__all__ = ["CopyExperts", "JoinedBank", "SharedValueExperts", "ZeroExperts"]


class JoinedBank(ExpertBank):
    """The experts of several banks behind one another; each bank runs its own in its fastest way.

    For experts of one kind and unlike size (low-rank adapters of ranks 4 and 16, feed-forward experts of two
    widths: a bank for each size), and for experts that do nothing beside others (:class:`ZeroExperts`).

    Args:
        banks: of rows ``[N, ...]``, with results of one shape.
    """

    def __init__(self, banks: Sequence[ExpertBank]) -> None:
        super().__init__()
        if not banks:
            raise ValueError("banks: expected at least one")
        self.banks = nn.ModuleList(banks)
        self.group_sizes = (sum(bank.num_experts for bank in banks),)
        self.reach = max(bank.reach for bank in banks)
        self.shares = any(bank.shares for bank in banks)

    def __iter__(self) -> Iterator[ExpertBank]:
        for bank in self.banks:
            assert isinstance(bank, ExpertBank)
            yield bank

    def row_flops(self) -> tuple[int, ...]:
        return tuple(flops for bank in self for flops in bank.row_flops())

    def expert(self, index: int, rows: Tensor) -> Tensor:
        starts = list(accumulate((bank.num_experts for bank in self), initial=0))
        place = next(i for i, start in enumerate(starts[1:]) if index < start)
        bank = self.banks[place]
        assert isinstance(bank, ExpertBank)
        return bank.expert(index - starts[place], rows)

    def idle(self, counts: tuple[int, ...]) -> list[nn.Parameter]:
        ends = pairwise(accumulate((bank.num_experts for bank in self), initial=0))
        return [p for bank, (a, b) in zip(self, ends, strict=True) for p in bank.idle(counts[a:b])]

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        done, expert, start = [], 0, 0
        for bank in self:
            mine = counts[expert : expert + bank.num_experts]
            end = start + sum(mine)
            # Without rows too: experts that are spread over processes are called by all of them.
            done.append(bank.run(rows, index[start:end], mine))
            expert, start = expert + bank.num_experts, end
        return torch.cat(done)


class ZeroExperts(ExpertBank):
    """Experts that add nothing: a row that is given one leaves a place empty (MoE++, Jin et al. 2025).

    Args:
        num_experts: how many.
        outputs: width of the results; that of the rows by default.
    """

    def __init__(self, num_experts: int = 1, outputs: int | None = None) -> None:
        super().__init__()
        self.group_sizes, self.outputs = (num_experts,), outputs

    def row_flops(self) -> tuple[int, ...]:
        return (0,) * self.num_experts

    def expert(self, index: int, rows: Tensor) -> Tensor:
        return rows.new_zeros(*rows.shape[:-1], self.outputs or rows.shape[-1])


class CopyExperts(ExpertBank):
    """Experts that give a row back as it is (MoE++, Jin et al. 2025).

    Args:
        num_experts: how many.
    """

    def __init__(self, num_experts: int = 1) -> None:
        super().__init__()
        self.group_sizes = (num_experts,)

    def row_flops(self) -> tuple[int, ...]:
        return (0,) * self.num_experts

    def expert(self, index: int, rows: Tensor) -> Tensor:
        return rows


class SharedValueExperts(ExpertBank):
    """Gated blocks ``W2 (act(W_e x) * V x)`` that share V and W2 and own W_e (MoE-MAE, Albughdadi 2025).

    Args:
        channels: C, in and out.
        hidden: width between.
        num_experts: E.
        activation: of the gate.
    """

    shares = True

    def __init__(self, channels: int, hidden: int, num_experts: int, activation: Activation = "silu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        self.group_sizes, self.activation = (num_experts,), activation
        self.gate, _ = stacked_linear(num_experts, channels, hidden, bias=False)
        self.value = nn.Linear(channels, hidden, bias=False)
        self.down = nn.Linear(hidden, channels, bias=False)

    def row_flops(self) -> tuple[int, ...]:
        shared = self.value.weight.numel() + self.down.weight.numel()
        return (2 * (size(self.gate) + shared),) * self.num_experts

    def _combined(self, gate: Tensor, rows: Tensor) -> Tensor:
        value = linear(rows, self.value.weight.T, None)
        return linear(ACTIVATIONS[self.activation].forward(gate) * value, self.down.weight.T, None)

    def expert(self, index: int, rows: Tensor) -> Tensor:
        return self._combined(linear(rows, self.gate[index], None), rows)

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        assert isinstance(rows, Tensor)
        gate = routed_products(rows, index, [Group(self.gate, None, (0,), counts)])
        return self._combined(gate, rows[index])
