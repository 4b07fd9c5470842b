"""Directions of a scan: an image as sequences in several orders, each undone after the scan."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

__all__ = ["Direction", "InDirection", "in_order", "scan_order"]

Direction = Literal["rows", "rows_reversed", "columns", "columns_reversed"]
"""In which order the pixels of an image are scanned: row by row, column by column, and each from its end."""


def scan_order(direction: Direction, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """``[H * W]`` int64, the pixel (in row-major order) that comes at each step of the scan."""
    if direction not in get_args(Direction):
        raise ValueError(f"direction={direction!r}: expected one of {', '.join(get_args(Direction))}")
    pixels = torch.arange(height * width, device=device).view(height, width)
    order = (pixels if direction.startswith("rows") else pixels.T).flatten()
    return order.flip(0) if direction.endswith("reversed") else order


def in_order(x: Tensor, order: Tensor, undo: bool = False) -> Tensor:
    """Steps of ``[B, L, C]`` in ``order`` ``[L]``; ``undo`` puts what :func:`in_order` gave back in place."""
    if not undo:
        return x[:, order]
    return x[:, order.argsort()]


class InDirection(nn.Module):
    """A sequence model as an expert on images: scanned in one direction, the results back in their places.

    Args:
        sequence: a module on ``[B, L, C]`` that keeps L, such as a state-space model.
        direction: see :data:`Direction`.

    Example:
        >>> experts = ModuleExperts([InDirection(scan, d) for d in get_args(Direction)])  # doctest: +SKIP
    """

    def __init__(self, sequence: nn.Module, direction: Direction) -> None:
        super().__init__()
        scan_order(direction, 1, 1)
        self.sequence, self.direction = sequence, direction

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C', H, W]``."""
        height, width = x.shape[2:]
        order = scan_order(self.direction, height, width, x.device)
        scanned: Tensor = self.sequence(in_order(x.flatten(2).transpose(1, 2), order))
        back = in_order(scanned, order, undo=True)
        return back.transpose(1, 2).reshape(*back.shape[::2], height, width)
