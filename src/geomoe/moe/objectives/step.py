"""What a training step asks of all layers of a model at once: balance terms, and biases that balance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.routing.router import AnyRouter

__all__ = ["balance_loss", "rebalance"]


def balance_loss(trace: RoutingTrace, terms: Mapping[Callable[[RoutingPlan], Tensor], float]) -> Tensor:
    """Terms of :mod:`geomoe.moe.objectives.balance`, times their weights, summed over all plans of a pass.

    Args:
        trace: of the pass.
        terms: weights by term, as ``{switch_loss: 1e-2, z_loss: 1e-3}``.
    """
    found = [weight * term(plan) for plan in trace for term, weight in terms.items()]
    return torch.stack(found).sum() if found else torch.zeros(())


def rebalance(traces: RoutingTrace | Sequence[RoutingTrace], rate: float) -> None:
    """Move the biases of every router that a pass recorded, once after each step of the optimiser.

    A router learns from all its plans at once, also of a layer that ran several times.

    Args:
        traces: of the pass; all of them where gradients were accumulated over several.
        rate: as of :meth:`geomoe.moe.routing.router.Router.rebalance`.
    """
    plans: dict[AnyRouter, list[RoutingPlan]] = {}
    for router, plan in _recorded([traces] if isinstance(traces, RoutingTrace) else traces):
        plans.setdefault(router, []).append(plan)
    for router, mine in plans.items():
        router.rebalance(mine, rate)


def _recorded(traces: Iterable[RoutingTrace]) -> Iterable[tuple[AnyRouter, RoutingPlan]]:
    for trace in traces:
        for router, plan in zip(trace.routers, trace, strict=True):
            if isinstance(router, AnyRouter):
                yield router, plan
