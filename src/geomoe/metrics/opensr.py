"""The protocol of opensr-test: is a result consistent with its input, and is the detail it adds right?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.metrics.consistency import MakeSmall
from geomoe.metrics.shapes import check_pair
from geomoe.metrics.spatial import phase_shift
from geomoe.metrics.spectral import sam

__all__ = ["OpenSR", "correctness", "opensr"]


@dataclass(frozen=True)
class OpenSR:
    """Seven scores of one image. Each is nan where it is undefined.

    Attributes:
        reflectance: consistency; mean absolute difference of the result downsampled and the input. 0 is best.
        spectral: consistency; mean spectral angle of the two, degrees. 0 is best.
        spatial: consistency; length of the shift between the two, pixels of the input. 0 is best.
        synthesis: mean absolute difference of result and upsampled input: detail added, right or not.
        improvement: correctness; share of pixels that came nearer to the truth.
        omission: correctness; share of pixels that stayed near the upsampled input.
        hallucination: correctness; share of pixels that went where neither is.
    """

    reflectance: float
    spectral: float
    spatial: float
    synthesis: float
    improvement: float
    omission: float
    hallucination: float


def opensr(
    result: Tensor,
    truth: Tensor,
    low: Tensor,
    scale: int,
    make_small: MakeSmall,
    *,
    upsample: Literal["bilinear", "bicubic"] = "bilinear",
    border: int = 16,
    least: float = 1 / 255,
    steepness: float = 0.8,
) -> OpenSR:
    """Consistency, synthesis and correctness of one image, after Aybar et al. 2024 (IEEE GRSL).

    The paper harmonises brightness and grid of result and truth with the input first. Here nothing is moved:
    pairs are expected to agree, as those that a degradation makes do. ``border``, ``least`` and ``steepness``
    stand for settings of the benchmark whose values its versions do not share. Scores are therefore not to be
    compared with those of the paper's tables.

    Args:
        result: ``[C, H, W]``, two bands or more, in reflectance or [0, 1].
        truth: like ``result``.
        low: the input, ``[C, H / scale, W / scale]``.
        scale: of the super-resolution.
        make_small: the degradation that made ``low``.
        upsample: how the input is brought to the size of the truth.
        border: pixels of the result that synthesis and correctness leave out on every side.
        least: see :func:`correctness`.
        steepness: see :func:`correctness`.

    Raises:
        GeomoeError: shapes that do not fit, one band, or an image no larger than its border.
    """
    check_pair(result, truth)
    if min(truth.shape[1:]) <= 2 * border:
        size = f"{truth.shape[2]}x{truth.shape[1]}"
        raise GeomoeError(f"an image of {size} pixels is too small for a border of {border} pixels")
    again = make_small(result[None], scale)[0]
    check_pair(again, low)
    inner = slice(border, -border or None)
    up = F.interpolate(low[None], scale_factor=scale, mode=upsample)[0]
    up, x, y = (t.double()[:, inner, inner] for t in (up, result, truth))
    return OpenSR(
        float((again.double() - low.double()).abs().mean()),
        sam(again, low),
        math.hypot(*phase_shift(again, low)),
        float((x - up).abs().mean()),
        *correctness(x, y, up, least=least, steepness=steepness),
    )


def correctness(
    result: Tensor, truth: Tensor, upsampled: Tensor, *, least: float = 1 / 255, steepness: float = 0.8
) -> tuple[float, float, float]:
    """Shares of improvement, omission and hallucination among the pixels, which add up to 1.

    With d the mean absolute difference of a pixel over bands, ``a = d(result, truth) / d(upsampled, truth)``
    and ``b = d(result, upsampled) / d(upsampled, truth)``; ``h = a + b - 1`` is 0 on the way from one to the
    other and more beside it. The pixel belongs to the nearest, which is the least, of

    - improvement: ``a + b (1 - exp(-g h))``,
    - omission: ``b + a (1 - exp(-g h))``,
    - hallucination: ``exp(-g a b)``,

    after Aybar et al. 2024, where g, here ``steepness``, was fitted to how people see. Assumed here: the
    distance d; the value of g; that equals go to the worse, hallucination before omission before improvement;
    and ``least``.

    Args:
        result: ``[C, H, W]``.
        truth: like ``result``.
        upsampled: the input in the size of the truth.
        least: a pixel whose ``d(upsampled, truth)`` is below has nothing to be drawn, and is left out.
        steepness: g.

    Returns:
        Nan for all three if no pixel is left.
    """
    check_pair(result, truth)
    check_pair(upsampled, truth)
    reference = (upsampled - truth).abs().mean(0)  # [H, W]
    counted = reference >= max(least, torch.finfo(torch.float64).tiny)
    if not counted.any():
        return math.nan, math.nan, math.nan
    a = ((result - truth).abs().mean(0) / reference)[counted]
    b = ((result - upsampled).abs().mean(0) / reference)[counted]
    away = 1 - torch.exp(-steepness * (a + b - 1))
    spaces = torch.stack([torch.exp(-steepness * a * b), b + a * away, a + b * away])
    nearest = spaces.argmin(0)  # of equals, the first
    hallucination, omission, improvement = (float((nearest == i).double().mean()) for i in range(3))
    return improvement, omission, hallucination
