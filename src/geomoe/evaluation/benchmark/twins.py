"""Which arms are twins of what they are tested against: the same but for its mixtures, by the same recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from geomoe.evaluation.benchmark.config import Arm, Benchmark
from geomoe.models.twin import TWINS
from geomoe.models.weights import load

__all__ = ["ENSEMBLE", "differences", "twin_kind", "twin_name"]

ENSEMBLE = "ensemble"
"""What a twin may be beside those of :data:`geomoe.models.twin.TWINS`."""

_OF_A_RUN = ("seed", "steps")
"""Of a card's recipe: what differs between two trainings by one recipe."""


def twin_kind(benchmark: Benchmark, arm: Arm) -> str:
    """What an arm claims to be of its rival: a key of ``TWINS``, :data:`ENSEMBLE`, or empty for no twin."""
    rival = benchmark.rival(arm)
    if arm is rival or arm.features is not None or rival.features is not None:
        return ""
    if arm.members > 1:
        return ENSEMBLE
    twin = arm.twin if arm.weights is None else getattr(benchmark.model_config(arm), "twin", "none")
    return twin if twin in TWINS else ""


def twin_name(benchmark: Benchmark, arm: Arm) -> str:
    """What a twin is called beside its rival, such as ``gated dense twin``; empty for no twin."""
    kind = twin_kind(benchmark, arm)
    return f"ensemble of {arm.members}" if kind == ENSEMBLE else TWINS.get(kind, "")


def differences(benchmark: Benchmark, arm: Arm) -> list[str]:
    """What keeps an arm from being a twin: options and recipe that are not its rival's, each in words.

    The members of an ensemble share the rival's steps, and are trained as it is but for their number.
    """
    mine, theirs = (_facts(benchmark, one) for one in (arm, benchmark.rival(arm)))
    return [
        f"{name} {_said(mine, name)}, not {_said(theirs, name)}"
        for name in sorted(mine | theirs)
        if mine.get(name) != theirs.get(name)
    ]


def _facts(benchmark: Benchmark, arm: Arm) -> dict[str, Any]:
    """Everything but ``twin`` that decides what is trained, and how, by dotted names."""
    options = asdict(benchmark.model_config(arm))
    options.pop("twin", None)
    if arm.weights is None:
        recipe: dict[str, Any] = dict(benchmark.recipe_of(arm))
    else:
        card = load(arm.weights, benchmark.scale).card
        told = {key: value for key, value in card.recipe.items() if key not in _OF_A_RUN}
        recipe = {"card": {**told, "data": card.data, "degradation": card.degradation}}
    return dict(_flat({**recipe, "options": options}))


def _flat(found: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _said(facts: dict[str, Any], name: str) -> str:
    return str(facts[name]) if name in facts else "as usual"
