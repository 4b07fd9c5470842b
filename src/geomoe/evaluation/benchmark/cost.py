"""What a tile costs in each arm: parameters, operations, time and memory, measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from geomoe.evaluation.peak import peak_of
from geomoe.models.weights import load
from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.experts.convolution import HeterogeneousBank
from geomoe.moe.flops import count_flops
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.routing.router import AnyRouter
from geomoe.moe.sort import count_choices

__all__ = ["Cost", "active_parameters", "measure_costs"]


@dataclass(frozen=True)
class Cost:
    """Of one tile.

    Attributes:
        parameters: of the model.
        active: parameters that take part in a pixel's result: all but those of experts that it was not
            given, a mean over the tile's pixels.
        gmac: 10^9 multiply-adds of products, convolutions and attention that ran, padding included.
        seconds: median.
        peak_mb: memory of a process that runs the tile, MB of 10^6 bytes.
    """

    parameters: int
    active: int
    gmac: float
    seconds: float
    peak_mb: float

    def times(self, members: int) -> Cost:
        """Of so many such networks, one after the other; each holds its weights, of float32."""
        weights = (members - 1) * 4 * self.parameters / 1e6
        return Cost(
            members * self.parameters, members * self.active, members * self.gmac, members * self.seconds,
            self.peak_mb + weights,
        )  # fmt: skip


def measure_costs(
    weights: Mapping[str, Path], tile: Tensor, device: torch.device, rounds: int = 9
) -> dict[str, Cost]:
    """Cost of one tile by arm.

    Every round runs each arm once, so that an hour in which the machine is busy slows all of them alike.

    Args:
        weights: trained ones of each arm: what routing costs depends on what was learned.
        tile: ``[1, bands, h, w]`` in [0, 1].
        device: that runs it.
        rounds: that the median is taken of.
    """
    models = {name: load(str(path)).model.to(device) for name, path in weights.items()}
    tile = tile.to(device)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    costs = {}
    with torch.inference_mode():
        # Also the warm-up.
        counted = {
            name: (active_parameters(model, tile), _gmac(model, tile)) for name, model in models.items()
        }
        for _ in range(rounds):
            for name, model in models.items():
                seconds[name].append(_time(model, tile))
    for name, model in models.items():
        active, gmac = counted[name]
        costs[name] = Cost(
            parameters=sum(p.numel() for p in model.parameters()),
            active=active,
            gmac=gmac,
            seconds=statistics.median(seconds[name]),
            peak_mb=peak_of(weights[name], tile.shape[-1], device),
        )
    return costs


def active_parameters(model: nn.Module, x: Tensor) -> int:
    """Parameters that take part in the result of a pixel of ``x``, a mean over its pixels."""
    plans: dict[ExpertBank, RoutingPlan] = {}
    hooks = [
        router.register_forward_hook(lambda _, __, plan, bank=bank: plans.update({bank: plan}))
        for router, bank in _routed(model)
    ]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    total = float(sum(p.numel() for p in model.parameters()))
    for bank, plan in plans.items():
        each = _by_expert(bank)
        used = sum(n * size for n, size in zip(count_choices(plan).tolist(), each, strict=True))
        total -= sum(each) - used / plan.num_rows
    return round(total)


def _routed(model: nn.Module) -> list[tuple[AnyRouter, ExpertBank]]:
    """Routers, and the experts that each chooses among, of every layer that calls them so."""
    parts = [(getattr(layer, "router", None), getattr(layer, "bank", None)) for layer in model.modules()]
    return [(r, b) for r, b in parts if isinstance(r, AnyRouter) and isinstance(b, ExpertBank)]


def _by_expert(bank: ExpertBank) -> list[float]:
    groups = list(bank) if isinstance(bank, HeterogeneousBank) else [bank]
    return [group.num_parameters / group.num_experts for group in groups for _ in range(group.num_experts)]


def _gmac(model: nn.Module, x: Tensor) -> float:
    return count_flops(lambda: model(x)) / 2e9


def _time(model: nn.Module, x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    began = time.perf_counter()
    model(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - began
