"""Does a result, downsampled again, give back the image that it was made from?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from geomoe.metrics.image import psnr
from geomoe.metrics.shapes import check_pair

__all__ = ["Consistency", "MakeSmall", "low_resolution_consistency"]

MakeSmall = Callable[[Tensor, int], Tensor]
"""``[B, C, H, W]`` and a scale to ``[B, C, H / scale, W / scale]``, as a Degradation of geomoe.data does."""


@dataclass(frozen=True)
class Consistency:
    """How far a downsampled result is from its input.

    Attributes:
        l1: mean absolute difference, in the unit of the images; 0 is best.
        psnr: in dB for a peak of 1; infinite where the input is given back.
    """

    l1: float
    psnr: float


def low_resolution_consistency(result: Tensor, low: Tensor, scale: int, make_small: MakeSmall) -> Consistency:
    """Compare ``make_small(result)`` with the input ``low``; needs no truth.

    Args:
        result: ``[C, H, W]`` in [0, 1].
        low: the input, ``[C, H / scale, W / scale]``.
        scale: of the super-resolution.
        make_small: the degradation that made ``low``, with the same rounding.
    """
    again = make_small(result[None], scale)[0]
    check_pair(again, low)
    return Consistency(float((again.double() - low.double()).abs().mean()), psnr(again, low, peak=1.0))
