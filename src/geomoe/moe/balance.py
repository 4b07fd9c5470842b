"""Balance: terms that keep experts in use. All are off unless a task asks for them."""

from __future__ import annotations

from torch import Tensor

from geomoe.moe.plan import RoutingPlan
from geomoe.moe.telemetry import load

__all__ = ["importance_loss", "switch_loss"]


def importance_loss(plan: RoutingPlan) -> Tensor:
    """Squared coefficient of variation of the experts' summed probability (Shazeer et al. 2017).

    0 when all experts are equally likely, E - 1 when one takes everything.
    """
    importance = plan.probabilities.sum(0)  # [E]
    return importance.var(correction=0) / importance.mean().square()


def switch_loss(plan: RoutingPlan) -> Tensor:
    """``E * sum_e f_e P_e``: share of rows times mean probability (Fedus et al. 2022).

    1 at uniform routing, E when one expert takes everything with certainty. The gradient flows
    through P alone.
    """
    return plan.num_experts * (load(plan) * plan.probabilities.mean(0)).sum()
