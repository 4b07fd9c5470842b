"""Banks of experts: experts that share a shape are held as stacked parameters, others side by side.

A bank says how many experts it has, what a row costs each of them, and how far it looks; and it runs sorted
rows through the experts that they were given (:meth:`ExpertBank.run`). What "rows" are, the units say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe import kernels
from geomoe.moe.blocks import ACTIVATIONS, feed_forward, spans
from geomoe.moe.grouped import grouped_linear, routed_product
from geomoe.moe.units import Neighbourhoods, pixels_to_rows

__all__ = [
    "ConvExperts",
    "DepthwiseExperts",
    "ExpertBank",
    "FeedForwardExperts",
    "HeterogeneousBank",
    "LowRankExperts",
    "ModuleExperts",
    "OpaqueExperts",
    "Rows",
]

Rows = Tensor | Neighbourhoods
"""``[N, ...]`` rows, or pixels with their surroundings."""


class ExpertBank(nn.Module):
    """Base of all banks.

    Attributes:
        group_sizes: experts in each group; ``(E,)`` where there are no groups.
        reach: pixels to each side of a row that an expert looks at.
    """

    group_sizes: tuple[int, ...]
    reach: int = 0

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
        return torch.cat(done) if done else self.nothing(rows)

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        """As :meth:`loop`, in the fastest way that the bank has."""
        return self.loop(rows, index, counts)

    def nothing(self, rows: Rows) -> Tensor:
        """Results of no row at all."""
        return self.expert(0, self.take(rows, torch.zeros(0, dtype=torch.long, device=device_of(rows)), 0))


def device_of(rows: Rows) -> torch.device:
    return rows.flat.device if isinstance(rows, Neighbourhoods) else rows.device


Activation = Literal["gelu", "relu", "silu"]


class FeedForwardExperts(ExpertBank):
    """E feed-forward blocks on rows ``[N, C]``: ``W2 act(W1 x)``, or gated, ``W2 (act(W1 x) * V x)``.

    Args:
        channels: C, in and out.
        hidden: width between.
        num_experts: E.
        activation: ``gelu``, ``relu`` or ``silu``.
        gated: a gated block (SwiGLU with ``silu``), which has one matrix more.
        bias: whether the matrices have one.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        num_experts: int,
        activation: Activation = "gelu",
        gated: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        self.group_sizes = (num_experts,)
        self.activation, self.gated = activation, gated
        wide = hidden * (2 if gated else 1)
        self.up, self.up_bias = stacked_linear(num_experts, channels, wide, bias)
        self.down, self.down_bias = stacked_linear(num_experts, hidden, channels, bias)

    def row_flops(self) -> tuple[int, ...]:
        return (2 * (self.up[0].numel() + self.down[0].numel()),) * self.num_experts

    def act(self, hidden: Tensor) -> Tensor:
        if not self.gated:
            return ACTIVATIONS[self.activation].forward(hidden)
        gate, value = hidden.chunk(2, -1)
        return ACTIVATIONS[self.activation].forward(gate) * value

    def expert(self, index: int, rows: Tensor) -> Tensor:
        hidden = linear(rows, self.up[index], None if self.up_bias is None else self.up_bias[index])
        down_bias = None if self.down_bias is None else self.down_bias[index]
        return linear(self.act(hidden), self.down[index], down_bias)

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        assert isinstance(rows, Tensor)
        if not kernels.available_for(rows):
            return feed_forward(
                rows,
                self.up,
                self.up_bias,
                self.down,
                self.down_bias,
                index,
                counts,
                ACTIVATIONS[self.activation],
                self.gated,
            )
        hidden = routed_product(rows, self.up, self.up_bias, index, (0,), counts)
        return grouped_linear(self.act(hidden), self.down, self.down_bias, counts)


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


class ConvExperts(ExpertBank):
    """M convolutions of one kernel size, on single pixels with their surroundings or on windows with a halo.

    ``weight`` is ``[M, k * k * C_in, C_out]``, kernel position first, so that an expert is one matrix
    product with rows of :meth:`geomoe.moe.units.Neighbourhoods.gather`.

    Args:
        in_channels, out_channels: widths.
        kernel_size: odd side of the kernel.
        num_experts: M.

    Raises:
        ValueError: an even kernel size.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, num_experts: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: expected an odd number")
        self.group_sizes = (num_experts,)
        self.kernel_size = kernel_size
        self.reach = kernel_size // 2
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight, bias = stacked_linear(num_experts, in_channels * kernel_size**2, out_channels)
        assert bias is not None
        self.bias = bias

    def row_flops(self) -> tuple[int, ...]:
        """For a pixel; a window costs as much for each of its pixels."""
        return (2 * self.weight[0].numel(),) * self.num_experts

    def kernels(self) -> Tensor:
        """``[M, C_out, C_in, k, k]``, as ``conv2d`` takes them."""
        k = self.kernel_size
        shape = (self.num_experts, k, k, self.in_channels, self.out_channels)
        return self.weight.view(shape).permute(0, 4, 3, 1, 2)

    def take(self, rows: Rows, index: Tensor, expert: int) -> Tensor:
        return rows.gather(index, self.kernel_size) if isinstance(rows, Neighbourhoods) else rows[index]

    def expert(self, index: int, rows: Tensor) -> Tensor:
        """Expert ``index`` on neighbourhoods ``[n, k * k * C]`` or windows ``[n, C, s + 2r, s + 2r]``."""
        if rows.dim() == 2:
            return linear(rows, self.weight[index], self.bias[index])
        return F.conv2d(rows, self.kernels()[index].to(rows.dtype), self.bias[index].to(rows.dtype))

    def everywhere(self, index: int, rows: Rows) -> Tensor:
        if not isinstance(rows, Neighbourhoods):
            return self.expert(index, rows)
        return pixels_to_rows(self.expert(index, rows.image(self.reach)))

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        if not isinstance(rows, Neighbourhoods):
            return self.loop(rows, index, counts)
        offsets = tuple(rows.offsets(self.kernel_size))
        return routed_product(rows.flat, self.weight, self.bias, rows.centres(index), offsets, counts)


class DepthwiseExperts(ExpertBank):
    """E depth-wise convolutions on single pixels with their surroundings: ``y_c = sum_t w_tc x_tc``.

    Args:
        channels: C, in and out.
        kernel_size: odd side of the kernel.
        num_experts: E.
    """

    def __init__(self, channels: int, kernel_size: int, num_experts: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: expected an odd number")
        self.group_sizes = (num_experts,)
        self.kernel_size, self.reach, self.out_channels = kernel_size, kernel_size // 2, channels
        bound = 1 / kernel_size
        self.weight = nn.Parameter(torch.empty(num_experts, kernel_size**2, channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_experts, channels).uniform_(-bound, bound))

    def row_flops(self) -> tuple[int, ...]:
        return (2 * self.weight[0].numel(),) * self.num_experts

    def take(self, rows: Rows, index: Tensor, expert: int) -> Tensor:
        assert isinstance(rows, Neighbourhoods)
        return rows.gather(index, self.kernel_size)

    def expert(self, index: int, rows: Tensor) -> Tensor:
        taps = rows.view(len(rows), *self.weight.shape[1:])  # [n, k * k, C]
        return (taps * self.weight[index].to(rows.dtype)).sum(1) + self.bias[index].to(rows.dtype)


class LowRankExperts(ExpertBank):
    """Low-rank adapters on one frozen layer: ``W0 x + (a / r) B_e A_e x`` (LoRA, Hu et al. 2022; MoLE,
    TT-LoRA MoE).

    B starts at 0, so that every expert starts as the layer itself. Where weights of a row's experts sum to
    one, the base counts once.

    Args:
        base: the layer, frozen.
        rank: r, 4 to 16 is usual.
        num_experts: E.
        alpha: a; ``rank`` by default.
    """

    def __init__(self, base: nn.Linear, rank: int, num_experts: int, alpha: float | None = None) -> None:
        super().__init__()
        self.group_sizes = (num_experts,)
        self.base = base.requires_grad_(False)
        self.factor = (rank if alpha is None else alpha) / rank
        bound = 1 / math.sqrt(base.in_features)
        self.a = nn.Parameter(torch.empty(num_experts, base.in_features, rank).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.zeros(num_experts, rank, base.out_features))

    def row_flops(self) -> tuple[int, ...]:
        return (2 * (self.base.weight.numel() + self.a[0].numel() + self.b[0].numel()),) * self.num_experts

    def expert(self, index: int, rows: Tensor) -> Tensor:
        low = rows @ self.a[index].to(rows.dtype) @ self.b[index].to(rows.dtype)
        out: Tensor = self.base(rows) + self.factor * low
        return out

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        assert isinstance(rows, Tensor)
        taken = rows[index]
        low = grouped_linear(grouped_linear(taken, self.a, None, counts), self.b, None, counts)
        out: Tensor = self.base(taken) + self.factor * low
        return out

    def merged(self, index: int) -> Tensor:
        """Weight ``[out, in]`` of a plain layer that is expert ``index``."""
        return self.base.weight + self.factor * (self.a[index] @ self.b[index]).T


class ModuleExperts(ExpertBank):
    """Modules of any kind, one an expert; they take rows alike and give results of one shape.

    Args:
        experts: the modules. Modules of unlike width, branches of a network, whole models.
        flops: operations of each on a row, where they are known.
        reach: pixels to each side that any of them looks at.
        frozen: keep their parameters from training.
    """

    def __init__(
        self,
        experts: Sequence[nn.Module],
        flops: Sequence[int] | None = None,
        reach: int = 0,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.group_sizes = (len(experts),)
        self.reach, self.flops = reach, None if flops is None else tuple(flops)
        if frozen:
            self.experts.requires_grad_(False)

    def row_flops(self) -> tuple[int, ...]:
        if self.flops is None:
            raise ValueError("row_flops: give flops= to ModuleExperts, or count a run with count_flops")
        return self.flops

    def expert(self, index: int, rows: Tensor) -> Tensor:
        out: Tensor = self.experts[index](rows)
        return out


class OpaqueExperts(ExpertBank):
    """Experts that nothing is known of but how to call them: functions, programs, fitted estimators.

    An expert gets rows ``[n, ...]`` as an array on the CPU and gives one result a row. No gradient passes.
    What has ``predict_proba`` or ``predict`` (scikit-learn's estimators) is asked for that; anything else
    is called.

    Args:
        experts: the callables or estimators.
        method: ask estimators for this method; None for ``predict_proba`` where there is one.
    """

    def __init__(self, experts: Sequence[object], method: str | None = None) -> None:
        super().__init__()
        self.group_sizes = (len(experts),)
        self.calls = [self._call_of(expert, method) for expert in experts]

    @staticmethod
    def _call_of(expert: object, method: str | None) -> Callable[..., object]:
        for name in (method,) if method is not None else ("predict_proba", "predict", "__call__"):
            call = getattr(expert, name, None)
            if callable(call):
                return call  # type: ignore[no-any-return]
        raise ValueError(f"{expert!r} has no method {method or 'predict'} and cannot be called")

    def row_flops(self) -> tuple[int, ...]:
        raise ValueError("row_flops: nothing is known of opaque experts")

    @torch.no_grad()
    def expert(self, index: int, rows: Tensor) -> Tensor:
        call = self.calls[index]
        is_method = getattr(call, "__name__", "") in ("predict_proba", "predict")
        result = torch.as_tensor(call(rows.detach().cpu().numpy() if is_method else rows.detach()))
        result = result.to(rows.device, rows.dtype)
        return result[:, None] if result.dim() == 1 else result

    def nothing(self, rows: Rows) -> Tensor:
        raise ValueError("opaque experts cannot be asked about no rows at all")


class HeterogeneousBank(ExpertBank):
    """Groups of experts; alike inside a group, different between groups (MFG-HMoE, equation 4).

    Raises:
        ValueError: groups that differ in their number of output channels.
    """

    def __init__(self, groups: Sequence[ConvExperts | DepthwiseExperts]) -> None:
        super().__init__()
        if len({group.out_channels for group in groups}) != 1:
            raise ValueError("groups of one bank must have the same number of output channels")
        self.groups = nn.ModuleList(groups)
        self.out_channels = groups[0].out_channels
        self.group_sizes = tuple(group.num_experts for group in groups)
        self.reach = max(group.reach for group in groups)

    def __iter__(self) -> Iterator[ExpertBank]:
        for group in self.groups:
            assert isinstance(group, ExpertBank)
            yield group

    def row_flops(self) -> tuple[int, ...]:
        return tuple(flops for group in self for flops in group.row_flops())

    def _member(self, index: int) -> tuple[ExpertBank, int]:
        starts = [0, *accumulate(self.group_sizes)]
        group = next(i for i in range(len(self.group_sizes)) if index < starts[i + 1])
        bank = self.groups[group]
        assert isinstance(bank, ExpertBank)
        return bank, index - starts[group]

    def take(self, rows: Rows, index: Tensor, expert: int) -> Tensor:
        group, member = self._member(expert)
        taken = group.take(rows, index, member)
        return taken if isinstance(rows, Neighbourhoods) else self._trimmed(taken, group)

    def _trimmed(self, windows: Tensor, group: ExpertBank) -> Tensor:
        # A window's halo is as wide as the widest kernel wants it.
        spare = self.reach - group.reach
        return windows[..., spare:-spare, spare:-spare] if spare else windows

    def expert(self, index: int, rows: Tensor) -> Tensor:
        group, member = self._member(index)
        return group.expert(member, rows)

    def everywhere(self, index: int, rows: Rows) -> Tensor:
        group, member = self._member(index)
        if isinstance(rows, Neighbourhoods):
            return group.everywhere(member, rows)
        return group.expert(member, self._trimmed(rows, group))

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        if not isinstance(rows, Neighbourhoods):
            return self.loop(rows, index, counts)
        done, expert, start = [], 0, 0
        for group in self:
            mine = counts[expert : expert + group.num_experts]
            end = start + sum(mine)
            done.append(group.run(rows, index[start:end], mine))
            expert, start = expert + group.num_experts, end
        return torch.cat(done)
