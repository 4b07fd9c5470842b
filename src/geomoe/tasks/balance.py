"""What keeps experts in use while training, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from geomoe.moe.objectives.balance import (
    even_entropy_loss,
    importance_loss,
    load_loss,
    switch_loss,
    z_loss,
)
from geomoe.moe.plan import RoutingPlan

__all__ = ["BALANCE"]


def _vmoe_loss(plan: RoutingPlan) -> Tensor:
    return 0.5 * (importance_loss(plan) + load_loss(plan))


BALANCE: dict[str, Callable[[RoutingPlan], Tensor]] = {
    "importance": importance_loss,
    "load": load_loss,
    "vmoe": _vmoe_loss,
    "switch": switch_loss,
    "entropy": even_entropy_loss,
    "z": z_loss,
}
"""Terms of the loss that keep experts in use, by name."""
