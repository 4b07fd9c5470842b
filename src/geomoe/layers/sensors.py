"""Images of several sensors, stacked band by band on one grid, of which a pixel may lack some."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise

import torch
from torch import Tensor

__all__ = ["by_band", "presence", "sensor_slices", "without"]


def sensor_slices(sensors: Mapping[str, int]) -> dict[str, slice]:
    """Which bands of the stack are each sensor's; ``sensors`` are numbers of bands by name, in order."""
    ends = accumulate(sensors.values(), initial=0)
    return {name: slice(*between) for name, between in zip(sensors, pairwise(ends), strict=True)}


def by_band(present: Tensor, sensors: Mapping[str, int]) -> Tensor:
    """``[..., S, H, W]``, of each sensor, as ``[..., C, H, W]``, of each band."""
    whose = [sensor for sensor, bands in enumerate(sensors.values()) for _ in range(bands)]
    return present.index_select(-3, torch.tensor(whose, device=present.device))


def presence(
    x: Tensor, sensors: Mapping[str, int], present: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """``[B, S, H, W]`` bool, which sensors each pixel of ``x`` ``[B, C, H, W]`` has.

    Args:
        x: images.
        sensors: numbers of bands by name; S of them, one where none is named.
        present: ``[B, S, H, W]`` bool, if it is known; a pixel that is not ``valid`` has none all the same.
        valid: ``[B, H, W]`` bool; all pixels if not given.
    """
    number = max(len(sensors), 1)
    if present is None:
        present = torch.ones(len(x), number, *x.shape[2:], dtype=torch.bool, device=x.device)
    return present if valid is None else present & valid[:, None]


def without(present: Tensor, sensors: Mapping[str, int], name: str) -> Tensor:
    """``[..., S, H, W]`` with sensor ``name`` taken away everywhere."""
    there = torch.tensor([each != name for each in sensors], device=present.device)
    return present & there[:, None, None]
