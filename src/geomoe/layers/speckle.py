"""Fully developed speckle: what coherent light makes of an intensity (Goodman 1976).

A radar image of L looks is the intensity that was there times a draw of the gamma distribution with shape L
and scale 1 / L, whose mean is 1 and whose variance is 1 / L: 1 of a single look, less with each that is
averaged. What is dark stays dark.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["draw_looks", "speckle"]


def speckle(intensity: Tensor, looks: Tensor) -> Tensor:
    """An intensity as a radar of so many looks would measure it.

    Args:
        intensity: ``[B, C, H, W]``, from 0, in any unit that is 0 where nothing comes back.
        looks: ``[B]``, L of each image, above 0; need not be whole.

    Returns:
        ``[B, C, H, W]``, drawn from torch's generator.

    Raises:
        ValueError: looks that are not above 0.
    """
    if not bool((looks > 0).all()):
        raise ValueError(f"looks={looks.tolist()}: expected numbers above 0")
    shape = looks.to(intensity.dtype).view(-1, 1, 1, 1).expand_as(intensity).contiguous()
    return intensity * torch._standard_gamma(shape) / shape


def draw_looks(number: int, choices: Sequence[int], device: torch.device | None = None) -> Tensor:
    """``[number]`` of the looks in ``choices``, each as likely, drawn from torch's generator."""
    return torch.tensor(choices, device=device)[torch.randint(len(choices), (number,), device=device)]
