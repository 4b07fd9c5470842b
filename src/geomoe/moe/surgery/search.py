"""A layout of experts within a budget (after AutoMoE, Jawahar et al. 2023)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

__all__ = ["Layout", "search_layout"]


@dataclass(frozen=True)
class Layout:
    """Where a network has experts, and which.

    Attributes:
        experts: number of experts of each layer; 1 is a dense layer.
        hidden: width of an expert of each layer.
    """

    experts: tuple[int, ...]
    hidden: tuple[int, ...]


def search_layout(
    layers: int,
    quality: Callable[[Layout], float],
    cost: Callable[[Layout], float],
    budget: float,
    *,
    experts: Sequence[int] = (1, 2, 4, 8),
    hidden: Sequence[int] = (64, 128, 256),
    population: int = 16,
    rounds: int = 10,
    seed: int = 0,
) -> Layout:
    """Evolutionary search for the layout of best quality whose cost is within the budget.

    Each round keeps the better half and fills up with mutations and crossings of it. Every candidate is
    within the budget; ``quality`` (a short training, or shared weights) is asked once a layout.

    Args:
        layers: layers of the network.
        quality: higher is better.
        cost: of a layout: FLOPs, parameters, seconds.
        budget: greatest cost.
        experts: numbers of experts that a layer may have.
        hidden: widths of an expert that a layer may have.
        population: candidates of a round.
        rounds: rounds.
        seed: same seed, same answer.

    Raises:
        ValueError: not even the cheapest layout is within the budget.
    """
    cheapest = Layout((min(experts),) * layers, (min(hidden),) * layers)
    if cost(cheapest) > budget:
        raise ValueError(f"budget={budget}: the cheapest layout costs {cost(cheapest)}")
    draw = random.Random(seed)
    known: dict[Layout, float] = {}

    def score(layout: Layout) -> float:
        if layout not in known:
            known[layout] = quality(layout)
        return known[layout]

    def any_layout() -> Layout:
        return Layout(
            tuple(draw.choice(experts) for _ in range(layers)),
            tuple(draw.choice(hidden) for _ in range(layers)),
        )

    def mutated(layout: Layout) -> Layout:
        at = draw.randrange(layers)
        if draw.random() < 0.5:
            return replace(layout, experts=_put(layout.experts, at, draw.choice(experts)))
        return replace(layout, hidden=_put(layout.hidden, at, draw.choice(hidden)))

    def crossed(a: Layout, b: Layout) -> Layout:
        cut = draw.randint(0, layers)
        return Layout(a.experts[:cut] + b.experts[cut:], a.hidden[:cut] + b.hidden[cut:])

    def within(make: Callable[[], Layout]) -> Layout:
        for _ in range(100):
            if cost(layout := make()) <= budget:
                return layout
        return cheapest

    candidates = [cheapest, *(within(any_layout) for _ in range(population - 1))]
    for _ in range(rounds):
        candidates.sort(key=score, reverse=True)
        best = candidates[: max(population // 2, 1)]
        children = [
            within(lambda: mutated(crossed(draw.choice(best), draw.choice(best))))  # noqa: B023
            for _ in range(population - len(best))
        ]
        candidates = best + children
    return max(candidates, key=score)


def _put(values: tuple[int, ...], at: int, value: int) -> tuple[int, ...]:
    return (*values[:at], value, *values[at + 1 :])
