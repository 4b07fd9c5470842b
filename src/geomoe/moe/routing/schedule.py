"""Schedules: routing that changes during training.

Each is set once a step, by the share of the run that is done. What is set is saved with the weights
(:mod:`geomoe.moe.settings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geomoe.moe.routing.adjust import BestGroup, ExpertDropout, Temperature
from geomoe.moe.routing.choice import Selection, TopK
from geomoe.moe.routing.router import Router
from geomoe.moe.settings import scheduled
from geomoe.moe.weights import RoutingMode, check_mode

__all__ = ["ElasticTopK", "Ramp", "RoutingSchedule"]


@dataclass(frozen=True)
class Ramp:
    """A value that goes in a straight line from ``start`` to ``end`` between two shares of the run.

    >>> Ramp(8, 2, begin=0.0, until=0.5)(0.25)
    5.0
    """

    start: float
    end: float
    begin: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.until <= 1:
            raise ValueError(f"begin={self.begin}, until={self.until}: expected 0 <= begin < until <= 1")

    def __call__(self, share: float) -> float:
        done = min(max((share - self.begin) / (self.until - self.begin), 0.0), 1.0)
        return self.start + (self.end - self.start) * done


class RoutingSchedule:
    """Sets a router's parts by the share of the run that is done.

    Curriculum routing is ``top_k=Ramp(E, 1)`` with a falling temperature; SMoE-Dropout (Chen et al. 2023)
    is a frozen router with ``top_k=Ramp(1, E)``.

    Args:
        router: whose parts are set.
        top_k: experts a row, rounded; for a router that chooses by :class:`~geomoe.moe.routing.choice.TopK`.
        temperature: for one that adjusts by :class:`~geomoe.moe.routing.adjust.Temperature`.
        dropout: rate, for one that adjusts by :class:`~geomoe.moe.routing.adjust.ExpertDropout`.
        frozen: shares of the run between which the router does not learn, as ``[(0.0, 0.1)]`` for a warm-up
            of the experts.

    Raises:
        ValueError: a part that the router does not have.
    """

    def __init__(
        self,
        router: Router,
        *,
        top_k: Ramp | None = None,
        temperature: Ramp | None = None,
        dropout: Ramp | None = None,
        frozen: Sequence[tuple[float, float]] = (),
    ) -> None:
        self.router, self.top_k, self.temperature, self.dropout = router, top_k, temperature, dropout
        self.frozen = tuple(frozen)
        self._learns = [p for p in router.parameters() if p.requires_grad]
        most = (
            min(router.group_sizes)
            if any(isinstance(p, BestGroup) for p in router.prefer)
            else router.num_experts
        )
        if top_k is not None and not isinstance(router.choice, TopK):
            raise ValueError("top_k: the router does not choose by TopK")
        if top_k is not None and not 1 <= min(top_k.start, top_k.end) <= max(top_k.start, top_k.end) <= most:
            raise ValueError(f"top_k={top_k}: expected 1 to {most}")
        if top_k is not None and isinstance(router.choice, TopK):
            check_mode(router.choice.mode, round(min(top_k.start, top_k.end)))
        if temperature is not None and min(temperature.start, temperature.end) <= 0:
            raise ValueError(f"temperature={temperature}: expected above 0")
        for name, wanted, kind in (
            ("temperature", temperature, Temperature),
            ("dropout", dropout, ExpertDropout),
        ):
            if wanted is not None and not self._parts(kind):
                raise ValueError(f"{name}: the router is not adjusted by {kind.__name__}")
        for part in (router.choice, *router.adjust):
            scheduled(part)

    def _parts(self, kind: type[nn.Module]) -> list[nn.Module]:
        return [part for part in self.router.adjust if isinstance(part, kind)]

    def step(self, share: float) -> None:
        """Set everything for ``share`` (0 to 1) of the run."""
        if self.top_k is not None:
            assert isinstance(self.router.choice, TopK)
            self.router.choice.k = round(self.top_k(share))
        if self.temperature is not None:
            for part in self._parts(Temperature):
                part.temperature = self.temperature(share)  # type: ignore[assignment]
        if self.dropout is not None:
            for part in self._parts(ExpertDropout):
                part.rate = self.dropout(share)  # type: ignore[assignment]
        resting = any(begin <= share < until for begin, until in self.frozen)
        if self.frozen:
            for parameter in self._learns:  # and not those that rest for good
                parameter.requires_grad_(not resting)


class ElasticTopK(TopK):
    """A random k for every call while training, so that any k serves later (Elastic MoE, Gu et al. 2025).

    Sets of experts are made random by :class:`~geomoe.moe.routing.adjust.ExpertDropout` beside it.

    Args:
        k: experts a row in evaluation; may be changed.
        ks: what k is drawn from while training.
        mode: see :data:`geomoe.moe.routing.choice.RoutingMode`.
    """

    def __init__(self, k: int, ks: Sequence[int], mode: RoutingMode = "soft") -> None:
        super().__init__(k, mode)
        if not isinstance(ks, Sequence) or not ks or min(ks) < 1:
            raise ValueError(f"ks={ks}: expected a sequence of whole numbers from 1, at least one of them")
        check_mode(mode, min(ks))
        self.ks = tuple(ks)

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        k = self.ks[int(torch.randint(len(self.ks), ()))] if self.training else self.k
        return self.select(logits, preference, k)
