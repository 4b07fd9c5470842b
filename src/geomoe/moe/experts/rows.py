"""Banks of experts on rows. Those that share a shape are held as stacked parameters, others side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from geomoe.moe.experts.bank import ExpertBank, Rows, linear, size, stacked_linear
from geomoe.moe.kernels import launch
from geomoe.moe.kernels.blocks import ACTIVATIONS, feed_forward
from geomoe.moe.kernels.grouped import Group, grouped_linear, routed_products

__all__ = ["Activation", "FeedForwardExperts", "LowRankExperts", "ModuleExperts", "Opaque"]

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
        return (2 * size(self.up, self.down),) * self.num_experts

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
        if rows.dim() != 2 or rows.shape[1] != self.up.shape[1]:
            raise ValueError(
                f"feed-forward experts take rows [N, {self.up.shape[1]}], not {list(rows.shape)}"
            )
        if not launch.available_for(rows):
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
    """Low-rank adapters, ``(a / r) B_e A_e x``, beside a frozen layer (LoRA, Hu et al. 2022; MoLE).

    B starts at 0, so that a layer with its adapters starts as the layer itself, whatever the router says:
    ``MoE(router, LowRankExperts(...), shared=layer)`` is ``W0 x + sum_e g_e (a / r) B_e A_e x``.

    Args:
        inputs: width of the layer's input.
        outputs: width of its output.
        rank: r, 4 to 16 is usual.
        num_experts: E.
        alpha: a; ``rank`` by default.
    """

    def __init__(
        self, inputs: int, outputs: int, rank: int, num_experts: int, alpha: float | None = None
    ) -> None:
        super().__init__()
        self.group_sizes = (num_experts,)
        self.factor = (rank if alpha is None else alpha) / rank
        self.a, _ = stacked_linear(num_experts, inputs, rank, bias=False)
        self.b = nn.Parameter(torch.zeros(num_experts, rank, outputs))

    def row_flops(self) -> tuple[int, ...]:
        return (2 * size(self.a, self.b),) * self.num_experts

    def expert(self, index: int, rows: Tensor) -> Tensor:
        return self.factor * (rows @ self.a[index].to(rows.dtype) @ self.b[index].to(rows.dtype))

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        assert isinstance(rows, Tensor)
        low = routed_products(rows, index, [Group(self.a, None, (0,), counts)])
        return self.factor * grouped_linear(low, self.b, None, counts)

    def merged(self, index: int, layer: nn.Linear) -> Tensor:
        """Weight ``[out, in]`` of a plain layer that is ``layer`` with the adapter ``index``."""
        return layer.weight + self.factor * (self.a[index] @ self.b[index]).T


class Opaque(nn.Module):
    """Something of which nothing is known but how to ask it: a function, a program, a fitted estimator.

    It gets rows as a float32 array on the CPU and gives one result a row. No gradient passes. Of an
    estimator (scikit-learn's) ``predict_proba`` is asked, or ``predict`` where it has none; anything else
    is called.

    Args:
        expert: the estimator or callable.
        method: ask an estimator for this instead.

    Raises:
        ValueError: it cannot be asked; or it is a module, which would not be trained here.
    """

    def __init__(self, expert: object, method: str | None = None) -> None:
        super().__init__()
        if isinstance(expert, nn.Module):
            raise ValueError(
                "a module would not be trained as an opaque expert; give it to ModuleExperts as it is"
            )
        names = (method,) if method is not None else ("predict_proba", "predict", "__call__")
        calls = [getattr(expert, name) for name in names if callable(getattr(expert, name, None))]
        if not calls:
            raise ValueError(f"{expert!r} has no method {method or 'predict'} and cannot be called")
        self.call: Callable[..., object] = calls[0]
        self.classes = getattr(expert, "classes_", None)

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Tensor:
        array = rows.detach().float().cpu().numpy()
        result = torch.as_tensor(self.call(array)).to(rows.device, rows.dtype)
        return result[:, None] if result.dim() == 1 else result


class ModuleExperts(ExpertBank):
    """Experts of any kind, one by one; they take rows alike and give results of one shape.

    Args:
        experts: modules of unlike width, branches of a network, whole models; what is no module (functions,
            fitted estimators) becomes an :class:`Opaque`.
        flops: operations of each on a row, where they are known.
        reach: pixels to each side that any of them looks at.
        frozen: keep them as they are: no parameter learns, and in training too they are in evaluation mode,
            without dropout and with the statistics that they came with.

    Raises:
        ValueError: estimators that were fitted to other classes than each other, or in another order.
    """

    def __init__(
        self,
        experts: Sequence[object],
        flops: Sequence[int] | None = None,
        reach: int = 0,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(e if isinstance(e, nn.Module) else Opaque(e) for e in experts)
        known = [e.classes for e in self.experts if isinstance(e, Opaque) and e.classes is not None]
        if any(list(classes) != list(known[0]) for classes in known):
            raise ValueError(
                f"experts were fitted to unlike classes: {', '.join(str(list(c)) for c in known)}"
            )
        self.group_sizes = (len(experts),)
        self.reach, self.flops = reach, None if flops is None else tuple(flops)
        self.frozen = frozen
        if frozen:
            self.experts.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.experts.eval()
        return self

    def row_flops(self) -> tuple[int, ...]:
        if self.flops is None:
            raise ValueError("row_flops: give flops= to ModuleExperts, or count a run with count_flops")
        return self.flops

    def expert(self, index: int, rows: Tensor) -> Tensor:
        out: Tensor = self.experts[index](rows)
        return out

    def idle(self, counts: tuple[int, ...]) -> list[nn.Parameter]:
        without = [expert for expert, count in zip(self.experts, counts, strict=True) if not count]
        return [parameter for expert in without for parameter in expert.parameters()]

    @torch.no_grad()
    def nothing(self, rows: Rows) -> Tensor:
        # An opaque expert may not be asked about no rows at all; one row says what the shape would be. It is
        # no row to learn from, for a norm's statistics either.
        assert isinstance(rows, Tensor)
        training = [module for module in self.experts[0].modules() if module.training]
        self.experts[0].eval()
        out = self.expert(0, rows.new_zeros(1, *rows.shape[1:]))[:0]
        for module in training:
            module.training = True
        return out
