"""Balanced linear assignment: rows to experts, every expert full, the sum of scores greatest."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["balanced_assignment"]

_STEPS = (1.0, 1e-2, 1e-4, 1e-6)
"""Bid increments over the range of the scores: a coarse auction sets the prices of the next, finer one."""


@torch.no_grad()
def balanced_assignment(scores: Tensor) -> Tensor:
    """Assign every row to an expert, ``ceil(N / E)`` rows to each at most (Bertsekas' auction, 1992).

    Rows without a place bid for the expert that is worth most to them after its price; an expert keeps its
    highest bidders, and its price is the lowest bid that it keeps. The sum of scores is within ``N * 1e-6``
    of the range of the scores of the best possible, and reaches it wherever the best is better than the
    second by more.

    Args:
        scores: ``[N, E]``; minus infinity where an expert is out of reach.

    Returns:
        ``[N]`` int64.

    Raises:
        ValueError: scores that are not numbers.
    """
    if scores.isnan().any():
        raise ValueError("balanced assignment: scores hold NaN")
    rows, experts = scores.shape
    places = -(-rows // experts)
    finite = scores.isfinite()
    if not finite.all():
        # Experts out of reach: so far below all others that one is taken only where nothing else is left.
        low, high = (float(x) for x in scores[finite].aminmax()) if finite.any() else (0.0, 0.0)
        scores = scores.double().nan_to_num(posinf=high, neginf=low - rows * max(high - low, 1.0))
    # Rows that like everything equally fill the places that are left over, so that each place is taken.
    value = torch.zeros(places * experts, experts, dtype=torch.float64, device=scores.device)
    value[:rows] = scores
    span = float(value.max() - value.min()) if rows else 0.0
    if experts == 1 or span == 0:
        return torch.arange(len(value), device=scores.device)[:rows] % experts
    price = torch.zeros(experts, dtype=torch.float64, device=scores.device)
    for step in _STEPS:
        holder, price = _auction(value, price, places, step * span)
    owner = torch.empty(len(value), dtype=torch.long, device=scores.device)
    owner[holder] = torch.arange(experts, device=scores.device)[:, None].expand_as(holder)
    return owner[:rows]


def _auction(value: Tensor, price: Tensor, places: int, step: float) -> tuple[Tensor, Tensor]:
    """One auction from the prices ``[E]``; the holders of every place ``[E, C]``, and the new prices."""
    holder = torch.full((len(price), places), -1, device=value.device)
    held = price[:, None].repeat(1, places)  # [E, C] what each place was bid
    waiting = torch.arange(len(value), device=value.device)
    while len(waiting):
        gain = value[waiting] - held.amin(1)  # [n, E], at the cheapest place of each expert
        wanted = gain.argmax(-1)
        second = gain.topk(2, -1).values[:, 1]
        bid = value[waiting, wanted] - second + step  # at this price the second best is as good, but for step
        losers = []
        for e in wanted.unique().tolist():
            mine = wanted == e
            rows = torch.cat([holder[e], waiting[mine]])
            bids, order = torch.cat([held[e], bid[mine]]).sort(descending=True)
            held[e], holder[e] = bids[:places], rows[order[:places]]
            losers.append(rows[order[places:]])
        waiting = torch.cat(losers)
        waiting = waiting[waiting >= 0]
    return holder, held.amin(1)
