"""Twins: what replaces a mixture of experts, to see what routing is worth."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from torch import Tensor, nn

from geomoe.moe.experts.bank import ExpertBank, Rows
from geomoe.moe.layers.layer import MoE
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.routing.choice import AllExperts
from geomoe.moe.routing.router import AnyRouter, Router
from geomoe.moe.surgery.prune import keep_experts
from geomoe.moe.units import Neighbourhoods, pixels_to_rows
from geomoe.moe.valid import present

__all__ = [
    "TWINS",
    "EvenExperts",
    "GatedTwin",
    "Mixture",
    "Twin",
    "experts_per_row",
    "nearest_width",
    "twin_of",
    "twin_width",
]

Twin = Literal["none", "active", "parameters", "gated", "frozen"]
"""What a network has in the place of its mixtures:

========== =========================================================================================
none       nothing else: the mixtures themselves
active     a dense layer with as many parameters as take part in the result of one row, router included
parameters one with as many as the whole mixture has
gated      the mixture's router, whose gates, summed, multiply one expert: a dense layer as large as the
           experts of one row. What it gains over ``active`` is modulation, what the mixture gains over it
           is choosing
frozen     the mixture, behind a router that keeps its random start
========== =========================================================================================
"""

TWINS: dict[str, str] = {
    "active": "dense twin, equal active cost",
    "parameters": "dense twin, equal parameters",
    "gated": "gated dense twin",
    "frozen": "frozen random router",
}
"""What twins are called in tables."""


class Mixture(Protocol):
    """A layer with a router and the experts that it chooses among."""

    @property
    def router(self) -> AnyRouter:
        """Decides."""

    @property
    def bank(self) -> ExpertBank:
        """The experts."""


def experts_per_row(router: AnyRouter) -> int:
    """How many experts a router gives each row; raises ValueError where that differs between rows."""
    choice = router.choice if isinstance(router, Router) else None
    if isinstance(choice, AllExperts) and not choice.threshold:
        return router.num_experts
    k = getattr(choice, "k", None)
    if k is None:
        raise ValueError("twin: expected a router that gives each row a fixed number of experts")
    return int(k)


def twin_width(mixture: Mixture, twin: Twin, each: int, beside: int = 0) -> int:
    """Hidden channels of the dense layer that stands for a mixture; at least one.

    Args:
        mixture: only the sizes of its parameters are looked at.
        twin: what is to be equal. Experts that differ in size are taken to be chosen alike.
        each: parameters that one hidden channel of the dense layer has.
        beside: parameters outside of the mixture that its router alone makes use of.

    Raises:
        ValueError: a router that gives some rows more experts than others, of which no cost is known before.
    """
    router, bank = (sum(p.numel() for p in part.parameters()) for part in (mixture.router, mixture.bank))
    if twin != "parameters":
        bank = experts_per_row(mixture.router) * bank // mixture.bank.num_experts
    routing = 0 if twin == "gated" else router + beside  # a gated twin has them
    return max(round((routing + bank) / each), 1)


def nearest_width(widths: Sequence[int], size: Callable[[int], int], wanted: int) -> int:
    """Of ``widths``, which rise, the one whose ``size`` is nearest to ``wanted``.

    Few sizes are asked for: each is that of a network that is made, and of a file of weights no more is made
    than may be its own (:func:`geomoe.models.skeleton.check_shapes`).
    """
    larger = bisect_left(widths, wanted, key=size)
    return min(widths[max(larger - 1, 0) : larger + 1], key=lambda width: abs(size(width) - wanted))


def twin_of(
    moe: MoE, twin: Twin, dense: Callable[[], nn.Module] | None = None
) -> MoE | GatedTwin | EvenExperts:
    """A layer that is called as ``moe`` and replaces it.

    Args:
        moe: the mixture.
        twin: what replaces it; ``none`` for the mixture itself.
        dense: makes the one expert of a gated twin, from rows to results, or from images where rows are
            pixels with their surroundings; :class:`EvenExperts` by default, as for dense twins.

    Raises:
        ValueError: a router that gives some rows more experts than others.
    """
    if twin == "none":
        return moe
    if twin == "frozen":
        moe.router.requires_grad_(False)
        return moe
    if twin == "gated":
        return GatedTwin(moe.router, EvenExperts(moe) if dense is None else dense())
    return EvenExperts(moe, every=twin == "parameters")


class GatedTwin(nn.Module):
    """One expert for every row, times the sum of the gates that the router gives.

    Args:
        router: decides what the gates are, as if there were its experts.
        expert: from rows, or from images where rows are pixels with their surroundings.
    """

    def __init__(self, router: AnyRouter, expert: nn.Module) -> None:
        super().__init__()
        self.router, self.expert = router, expert

    def forward(
        self,
        rows: Rows,
        signals: Tensor | None = None,
        *,
        grid: tuple[int, ...] | None = None,
        context: Tensor | None = None,
        valid: Tensor | None = None,
        trace: RoutingTrace | None = None,
    ) -> Tensor:
        """As :class:`MoE`."""
        if isinstance(rows, Neighbourhoods):
            grid, out = rows.grid, pixels_to_rows(self.expert(rows.image(0)))
        else:
            out = self.expert(present(rows, valid))
        shown = rows if signals is None else signals
        assert isinstance(shown, Tensor)
        plan = self.router(shown, grid, context, valid)
        plan = plan if trace is None else trace.record(plan, self.router, shown)
        gate = plan.gates.sum(1).to(out.dtype)
        return present(out, valid) * gate.view(-1, *(1,) * (out.dim() - 1))


class EvenExperts(nn.Module):
    """Some experts of a mixture, each for every row, and the mean of what they give: nothing is chosen.

    Args:
        moe: the mixture.
        every: all of its experts; else as many as it gives a row, the largest.

    Raises:
        ValueError: a router that gives some rows more experts than others.
    """

    def __init__(self, moe: MoE, every: bool = False) -> None:
        super().__init__()
        number = moe.bank.num_experts if every else experts_per_row(moe.router)
        sizes = [keep_experts(moe.bank, [e]).num_parameters for e in range(moe.bank.num_experts)]
        largest = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)[:number]
        self.bank = keep_experts(moe.bank, sorted(largest))

    def forward(
        self,
        rows: Rows,
        signals: Tensor | None = None,
        *,
        grid: tuple[int, ...] | None = None,
        context: Tensor | None = None,
        valid: Tensor | None = None,
        trace: RoutingTrace | None = None,
    ) -> Tensor:
        """As :class:`MoE`; routes nothing."""
        if isinstance(rows, Tensor):
            rows = present(rows, valid)
        number = self.bank.num_experts
        total: Tensor = sum(self.bank.everywhere(e, rows) for e in range(number))  # type: ignore[assignment]
        return present(total / number, valid)
