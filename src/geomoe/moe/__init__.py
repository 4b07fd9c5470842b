"""The core: routers, plans, expert banks, dispatch, balance and telemetry. Imports torch alone.

units     an image as rows, and back
router    signals in, a RoutingPlan out
experts   banks of experts held as stacked parameters
dispatch  a plan carried out on a bank
balance   terms that keep experts in use
telemetry what the routing did, in numbers
"""

from geomoe.moe.balance import importance_loss, switch_loss
from geomoe.moe.dispatch import dispatch
from geomoe.moe.experts import ConvExperts, HeterogeneousBank
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.router import DualRouter, RoutingMode
from geomoe.moe.telemetry import RoutingHealth, routing_health

__all__ = [
    "ConvExperts",
    "DualRouter",
    "HeterogeneousBank",
    "RoutingHealth",
    "RoutingMode",
    "RoutingPlan",
    "RoutingTrace",
    "dispatch",
    "importance_loss",
    "routing_health",
    "switch_loss",
]
