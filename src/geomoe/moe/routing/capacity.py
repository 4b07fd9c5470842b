"""Capacity: no expert takes more rows than it has places for."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Capacity", "Priority"]

Priority = Literal["order", "gate"]
"""Who gets the places: the first choices of all rows in their order, then the second ones (``order``, GShard,
Lepikhin et al. 2021), or the rows with the largest gate (``gate``, batch-priority routing, Riquelme et al.
2021)."""


class Capacity:
    """Drops the choices for which an expert has no place: ``C = ceil(factor * k * N / E)``.

    A dropped choice adds nothing to its row. What is dropped depends on the other rows of the call.

    Args:
        factor: places over those that an even load would need; 1.25 to 2 is usual, below 1 always drops.
        priority: see :data:`Priority`.
        evaluation_factor: the same in evaluation; None for no limit there, so that a scene does not depend
            on its tiles.
        per_sample: each sample of the grid has places of its own: N is the rows of one, and what is dropped
            does not depend on the others.
    """

    def __init__(
        self,
        factor: float = 1.25,
        priority: Priority = "order",
        evaluation_factor: float | None = None,
        per_sample: bool = False,
    ) -> None:
        for name, value in (("factor", factor), ("evaluation_factor", evaluation_factor)):
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value}: expected above 0")
        if priority not in get_args(Priority):
            raise ValueError(f"priority={priority!r}: expected one of {', '.join(get_args(Priority))}")
        self.factor, self.priority, self.evaluation_factor = factor, priority, evaluation_factor
        self.per_sample = per_sample

    def keep(
        self,
        experts: Tensor,
        probabilities: Tensor,
        kept: Tensor | None,
        num_experts: int,
        training: bool,
        k: int | None = None,
        sample: Tensor | None = None,
    ) -> Tensor | None:
        """``[N, k]`` bool, the choices that have a place, out of those ``kept`` so far.

        Args:
            experts: ``[N, k]``, best first.
            probabilities: ``[N, E]``; a row's largest is its priority where that is the gate.
            kept: ``[N, k]`` bool, the choices that ask for a place; None for all.
            num_experts: E.
            training: which factor counts.
            k: choices of a row that places are made for; None for as many as ask.
            sample: ``[N]`` int64, the sample of each row, where each has places of its own.
        """
        factor = self.factor if training else self.evaluation_factor
        if factor is None:
            return kept
        slots, rows = experts.shape[1], experts.shape[0]
        flat = experts.T.reshape(-1)  # [k * N]: all first choices, then all second ones
        asking = experts.new_full((rows,), slots if k is None else k) if kept is None or k else kept.sum(1)
        if sample is None:
            number, asked, own = 1, asking.sum()[None], flat
        else:
            number = int(sample.max()) + 1 if rows else 1
            asked = sample.new_zeros(number).index_add(0, sample, asking)
            own = sample.repeat(slots) * num_experts + flat
        asks = torch.ones_like(flat, dtype=torch.bool) if kept is None else kept.T.reshape(-1)
        turn = torch.arange(rows, device=flat.device)
        if self.priority == "gate":
            turn = probabilities.detach().amax(1).argsort(descending=True, stable=True)
        order = (torch.arange(slots, device=flat.device)[:, None] * rows + turn).flatten()
        # A queue for each expert of each sample. Those that do not ask stand in one of their own, behind all.
        places = limit(factor, asked, num_experts)
        queues = number * num_experts
        queue = torch.where(asks, own, queues)[order]
        if sample is not None:
            places = F.pad(places, (0, 1))[queue // num_experts]
        granted = torch.empty_like(asks)
        granted[order] = place_in_queue(queue, queues + 1) < places
        return (granted & asks).view(slots, rows).T


def limit(factor: float, asked: Tensor, num_experts: int) -> Tensor:
    """Places of each expert, int64, where ``asked`` choices of a call (or a sample) ask for one."""
    # A little less, since 1.1 * 100 / 10 is 11.000000000000002.
    return (asked.double() * (factor / num_experts) - 1e-9).ceil().long()


def place_in_queue(queue: Tensor, queues: int) -> Tensor:
    """For each member of ``queue`` ``[n]``, how many stand before it in the same queue."""
    order = queue.argsort(stable=True)
    lengths = torch.bincount(queue, minlength=queues)
    starts = lengths.cumsum(0) - lengths
    place = torch.empty_like(order)
    place[order] = torch.arange(queue.shape[0], device=queue.device) - starts[queue[order]]
    return place
