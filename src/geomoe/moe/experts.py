"""Banks of experts on rows. Those that share a shape are held as stacked parameters, others side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from geomoe.moe import kernels
from geomoe.moe.bank import ExpertBank, Rows, linear, stacked_linear
from geomoe.moe.blocks import ACTIVATIONS, feed_forward
from geomoe.moe.grouped import Group, grouped_linear, routed_products

__all__ = ["Activation", "FeedForwardExperts", "LowRankExperts", "ModuleExperts", "OpaqueExperts"]

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
        hidden = routed_products(rows, index, [Group(self.up, self.up_bias, (0,), counts)])
        return grouped_linear(self.act(hidden), self.down, self.down_bias, counts)


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
