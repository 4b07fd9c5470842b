"""FLOPs: what a plan costs on a bank, and what a run really executed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from geomoe.moe import kernels
from geomoe.moe.bank import ExpertBank
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.sort import count_choices

__all__ = ["active_flops", "count_flops"]


def active_flops(bank: ExpertBank, plan: RoutingPlan, pixels: int = 1) -> int:
    """Operations that ``plan`` asks of ``bank``: each choice that is carried out, times its expert's cost.

    A multiply and an add count as two. The router is not counted.

    Args:
        bank: the experts.
        plan: for its rows.
        pixels: of a row, where convolutions work on windows: ``size * size``.
    """
    counts = count_choices(plan).tolist()
    work = sum(count * flops for count, flops in zip(counts, bank.row_flops(), strict=True))
    return int(pixels * work)


def count_flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products, convolutions and attention that ``run`` executed.

    Counted where they happen, so that a routed layer counts what its plan made it do, padding and gathered
    copies included.

    Example:
        >>> import torch
        >>> count_flops(lambda: torch.randn(3, 4) @ torch.randn(4, 5))
        120
    """
    from torch.utils.flop_counter import FlopCounterMode  # drags Triton in where it is installed

    # torch's counter knows the fused attention of accelerators, not that of the CPU.
    fused = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with kernels.switched_off(), FlopCounterMode(display=False, custom_mapping=fused) as counter:
        run()
    return int(counter.get_total_flops())


def _attention_flops(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any
) -> int:
    """Of ``[B, heads, n, d]`` queries, ``[B, heads, m, d]`` keys and ``[B, heads, m, c]`` values."""
    return 2 * math.prod(query[:3]) * key[2] * (query[3] + value[3])
