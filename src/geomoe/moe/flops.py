"""FLOPs: what a plan costs on a bank, and what a run really executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.kernels import launch
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
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode  # drags Triton in where it is installed

    # The fused attention of a CPU is not known to the counter; its plain form is two products that are.
    plain = sdpa_kernel(SDPBackend.MATH)
    with launch.switched_off(), plain, FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
