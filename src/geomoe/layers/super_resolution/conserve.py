"""A result whose mean over each pixel of the input is that pixel: nothing is invented that would change it.

The hard, additive constraint of Harder et al., "Hard-Constrained Deep Learning for Climate Downscaling",
JMLR 24 (2023), gives what is missing to all of a square alike, so that squares show. Here it is spread as
a surface that runs on from pixel to pixel and has the wanted mean in each: the parabolas of Colella and
Woodward, "The Piecewise Parabolic Method", J. Comput. Phys. 54 (1984), unlimited, on an even grid, along
rows, then along columns.
"""

from __future__ import annotations

from functools import lru_cache, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.layers.precision import at_least_single

__all__ = ["CONSERVE_REACH", "conserve"]

CONSERVE_REACH = 2
"""Pixels of the input, beside the one that it lies in, on which a pixel of the output comes to depend."""


def conserve(low: Tensor, high: Tensor, scale: int, bounds: tuple[float, float] | None = None) -> Tensor:
    """``high`` with as little changed as makes its mean over each pixel of ``low`` that pixel.

    Of any model: ``conserve(x, model(x), scale)``. It can be trained through, as gradients pass.

    Args:
        low: ``[B, C, H, W]``, the input, in the units of ``high``.
        high: ``[B, C, H * scale, W * scale]``, the result.
        scale: of the super-resolution.
        bounds: least and largest value that the result may have. What that takes from some pixels of a
            square is given to those that have room, in equal parts. Where ``low`` itself is outside, the
            result is the nearer of them.

    Returns:
        Like ``high``, in float32 where that is half precision; its means are exact to rounding.

    Raises:
        ValueError: for sizes that do not belong together.
    """
    if high.shape != (*low.shape[:2], low.shape[2] * scale, low.shape[3] * scale):
        raise ValueError(
            f"high {tuple(high.shape)} is not {scale} times as high and as wide as low {tuple(low.shape)}"
        )
    low, high = at_least_single(low), at_least_single(high)
    high = high + _smooth(low - F.avg_pool2d(high, scale), scale)
    return high if bounds is None else _bounded(low, high, *bounds)


def _smooth(missing: Tensor, scale: int) -> Tensor:
    """A smooth surface whose mean over each pixel of ``missing`` ``[B, C, H, W]`` is that pixel."""
    return _finer(_finer(missing, scale, 3), scale, 2)


def _finer(x: Tensor, scale: int, dim: int) -> Tensor:
    """``scale`` parts of every pixel along ``dim``, which have its mean.

    Sums are written out, not a convolution: how they are rounded must not depend on the size of ``x``.
    """
    size = x.shape[dim]
    around = torch.arange(-CONSERVE_REACH, size + CONSERVE_REACH, device=x.device).clamp(0, size - 1)
    near = [x.index_select(dim, around[i : i + size]) for i in range(2 * CONSERVE_REACH + 1)]
    parts = [
        reduce(torch.add, (weight * each for weight, each in zip(row, near, strict=True)))
        for row in _parts(scale)
    ]
    return torch.stack(parts, dim + 1).flatten(dim, dim + 1)


@lru_cache
def _parts(scale: int) -> list[list[float]]:
    """What each of the ``scale`` parts of a pixel has of the two pixels before, itself and the two after."""
    # Each end of a parabola lies between two pixels and is what four of them say, the same for both.
    left = [-1 / 12, 7 / 12, 7 / 12, -1 / 12, 0.0]
    right = left[::-1]
    rows = []
    for part in range(scale):
        begin, end = part / scale, (part + 1) / scale
        # Mean over the part of a + x (b - a) + 6 (m - (a + b) / 2) x (1 - x), of ends a, b and mean m.
        first = scale * (end**2 - begin**2) / 2
        bow = scale * (end**2 / 2 - end**3 / 3 - begin**2 / 2 + begin**3 / 3)
        rows.append(
            [
                a * (1 - first - 3 * bow) + b * (first - 3 * bow) + m * 6 * bow
                for a, b, m in zip(left, right, (0.0, 0.0, 1.0, 0.0, 0.0), strict=True)
            ]
        )
    return rows


def _bounded(low: Tensor, high: Tensor, least: float, most: float) -> Tensor:
    """``high`` within bounds, its means kept."""
    scale = high.shape[-1] // low.shape[-1]
    if bool(high.min() >= least) and bool(high.max() <= most):
        return high
    squares = F.pixel_unshuffle(high, scale).unflatten(1, (low.shape[1], -1)).movedim(2, -1)
    beyond = _beyond(squares, least, most)  # [B, C, H, W], of [B, C, H, W, s * s]
    rows, wanted = squares[beyond], low[beyond].clamp(least, most)[:, None]  # [N, s * s], [N, 1]
    # Each round is a square's last, or leaves one pixel more of it without room.
    for _ in range(rows.shape[1]):
        unfit = _beyond(rows, least, most)
        if not unfit.any():
            break
        inside = rows.clamp(least, most)
        missing = wanted - inside.mean(1, keepdim=True)
        room = torch.where(missing > 0, inside < most, inside > least)
        each = missing * rows.shape[1] / room.sum(1, keepdim=True).clamp_min(1)
        rows = torch.where(room & unfit[:, None], inside + each, inside)
    squares = squares.index_put((beyond,), rows.clamp(least, most)).movedim(-1, 2)
    return F.pixel_shuffle(squares.flatten(1, 2), scale)


def _beyond(rows: Tensor, least: float, most: float) -> Tensor:
    """Of which rows ``[..., N]`` a value is out of bounds."""
    return ((rows < least) | (rows > most)).any(-1)
