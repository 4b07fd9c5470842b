"""What a tensor of a published file undergoes to be ours, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FLIPPED", "JOINED", "POINTWISE", "SAME", "TRANSPOSED", "ZEROS", "Change", "rolled", "stacked"]


@dataclass(frozen=True)
class Change:
    """A change of tensors that can be undone.

    Attributes:
        to_ours: our tensor, from the published ones and the shape that ours has.
        to_published: the published tensors, from ours.
    """

    to_ours: Callable[[Sequence[Tensor], torch.Size], Tensor]
    to_published: Callable[[Tensor], Sequence[Tensor]]


def _one(change: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Change:
    """Of a single tensor, whatever its shape."""
    return Change(lambda tensors, _: change(tensors[0]), lambda tensor: [back(tensor)])


SAME = _one(lambda t: t, lambda t: t)

ZEROS = Change(lambda tensors, shape: torch.zeros(shape), lambda tensor: [])
"""For what ours has alone, and what is without effect at 0."""

FLIPPED = _one(lambda t: t.flip(0), lambda t: t.flip(0))
"""Position tables of windows: published ones are indexed by query minus key, ours by key minus query."""

POINTWISE = _one(
    lambda t: t.flatten(1) if t.dim() == 4 else t, lambda t: t[:, :, None, None] if t.dim() == 2 else t
)
"""Convolutions of 1x1 ``[a, b, 1, 1]``, which are linear layers ``[a, b]`` here; biases stay."""


TRANSPOSED = _one(lambda t: t.T, lambda t: t.T)

JOINED = Change(lambda tensors, _: torch.cat(list(tensors)), lambda tensor: tensor.split(1))
"""Numbers ``[1]`` each, which are one row here."""


def rolled(rows: int) -> Change:
    """Position tables of overlapping windows: published indices begin ``rows`` below 0, ours at 0."""
    return _one(lambda t: t.roll(rows, 0), lambda t: t.roll(-rows, 0))


def stacked(each: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Change:
    """Several tensors, each changed by itself and then stacked along a new first dimension."""
    return Change(
        lambda tensors, _: torch.stack([each(t) for t in tensors]), lambda t: [back(part) for part in t]
    )
