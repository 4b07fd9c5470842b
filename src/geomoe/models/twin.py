"""Dense twins: what replaces a mixture of experts, to see what routing is worth."""

from __future__ import annotations

from typing import Literal

from geomoe.moe.layers.layer import MoE
from geomoe.moe.routing.router import Router

__all__ = ["Twin", "twin_width"]

Twin = Literal["none", "active", "parameters"]
"""What a network has in the place of its mixtures: nothing else, a dense layer with as many parameters as
take part in the result of one row, router included, or one with as many as the whole mixture has."""


def twin_width(moe: MoE, twin: Twin, each: int) -> int:
    """Hidden channels of the dense layer that stands for a mixture; at least one.

    Args:
        moe: the mixture; only the sizes of its parameters are looked at.
        twin: what is to be equal. Experts that differ in size are taken to be chosen alike.
        each: parameters that one hidden channel of the dense layer has.

    Raises:
        ValueError: a router that gives some rows more experts than others, of which no cost is known before.
    """
    router, bank = (sum(p.numel() for p in part.parameters()) for part in (moe.router, moe.bank))
    if twin == "active":
        k = getattr(moe.router.choice, "k", None) if isinstance(moe.router, Router) else None
        if k is None:
            raise ValueError("twin='active': expected a router that gives each row a fixed number of experts")
        bank = k * bank // moe.bank.num_experts
    return max(round((router + bank) / each), 1)
