"""Sensors that a sample lacks: which they are, what stands in their place, and learning to do without."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.moe.experts.bank import exporting

__all__ = ["Placeholders", "drop_sensors", "pattern_count", "pattern_of"]


def pattern_count(sensors: int) -> int:
    """How many patterns there are of sensors that are there, at least one."""
    return (1 << sensors) - 1


def pattern_of(present: Tensor) -> Tensor:
    """Number ``[n]`` of the pattern of each sample, from 0; of all sensors the last.

    Sensor s counts ``2 ** s``, less 1 in all: of two, 0 is the first alone, 1 the second alone, 2 both.

    Args:
        present: ``[n, S]`` bool, the sensors that each sample has.

    Raises:
        GeomoeError: a sample that has none.
    """
    if not exporting() and not present.any(1).all():
        raise GeomoeError("a sample lacks every sensor; expected one at least of each")
    place = 2 ** torch.arange(present.shape[1], device=present.device)
    return (present * place).sum(1) - 1


def drop_sensors(present: Tensor, share: float) -> Tensor:
    """``present`` ``[n, S]`` bool, of which a ``share`` of the samples lacks some more, though never all.

    All patterns that are part of a sample's own, and smaller, are as likely. A sample of one sensor keeps it.
    """
    sensors = present.shape[1]
    every = torch.tensor(list(product([False, True], repeat=sensors))[1:], device=present.device)
    inside = ~(every & ~present[:, None]).any(2)  # [n, patterns]
    own = (every == present[:, None]).all(2)
    smaller = inside & ~own
    allowed = torch.where(smaller.any(1, keepdim=True), smaller, own)
    drawn = every[torch.multinomial(allowed.float(), 1).squeeze(1)]
    chosen = torch.rand(len(present), 1, device=present.device) < share
    return torch.where(chosen, drawn, present)


class Placeholders(nn.Module):
    """A token for each sensor that stands in the place of its tokens where a sample lacks it; it is learned.

    Args:
        sensors: S.
        channels: C.
    """

    def __init__(self, sensors: int, channels: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(sensors, 1, channels))
        nn.init.trunc_normal_(self.tokens, std=0.02)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """``[n, S, T, C]`` with ``present`` ``[n, S]``; what stands for what is not there changes nothing."""
        return torch.where(present[..., None, None], tokens, self.tokens.to(tokens.dtype))
