"""Crops: the parts of an image that are looked at closely, and how they are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.metrics.protocol import Protocol
from geomoe.pipeline.tiles import Box

__all__ = ["check_inside", "cut", "most_different", "parse_crop", "score_crop"]

_LEAST = 32


def parse_crop(text: str) -> Box:
    """``X,Y,W,H`` in high-resolution pixels: upper left corner, counted from the image's, and size.

    Raises:
        GeomoeError: for anything else.
    """
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise GeomoeError(f"crop {text!r}: expected X,Y,W,H in whole pixels, such as 96,32,64,64") from None
    return Box(x, y, width, height)


def check_inside(crop: Box, width: int, height: int) -> None:
    """Refuse a crop that is empty or not wholly inside an image of this size, with a GeomoeError."""
    inside = min(crop.x, crop.y) >= 0 and crop.x + crop.width <= width and crop.y + crop.height <= height
    if min(crop.width, crop.height) < 1 or not inside:
        raise GeomoeError(
            f"crop {crop.x},{crop.y},{crop.width},{crop.height} is not inside the high-resolution image of "
            f"{width} x {height} pixels; expected X,Y,W,H with X + W up to {width} and Y + H up to {height}"
        )


def cut(image: Tensor, crop: Box) -> Tensor:
    """The part of ``[..., H, W]`` that a crop frames."""
    return image[..., crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]


def most_different(images: Sequence[Tensor]) -> Box:
    """The square in which images differ most: that of the largest mean variance among them.

    No image is favoured: the truth, if there is one, the baseline and every model count alike. A side
    is a quarter of the image's smaller one, at least 32 pixels, at most all of it; of equals the upper left.

    Args:
        images: ``[C, H, W]`` of one shape, two at least.
    """
    height, width = images[0].shape[-2:]
    side = min(max(min(height, width) // 4, _LEAST), height, width)
    spread = torch.stack([image.double() for image in images]).var(0, correction=0).mean(0)  # [H, W]
    sums = F.pad(spread.cumsum(0).cumsum(1), (1, 0, 1, 0))  # [H + 1, W + 1], of all pixels above and left
    square = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    y, x = divmod(int(square.argmax()), square.shape[1])
    return Box(x, y, side, side)


def score_crop(
    rules: Protocol, result: Tensor, truth: Tensor, scale: int, crop: Box
) -> tuple[float, float] | None:
    """PSNR in dB and SSIM of a crop.

    The border that the protocol cuts is the image's, where a model lacks context, and not the crop's: a crop
    in the middle is scored whole, one at the edge without what lies in the border, and one of the whole image
    as the image.

    Args:
        rules: the protocol.
        result: ``[C, H, W]`` in [0, 1], the whole image.
        truth: like ``result``.
        scale: of the super-resolution.
        crop: inside it.

    Returns:
        None where fewer pixels are left than a window of SSIM has.
    """
    border = scale if rules.border == "scale" else 0
    height, width = truth.shape[-2:]
    left, top = max(crop.x, border), max(crop.y, border)
    right, bottom = min(crop.x + crop.width, width - border), min(crop.y + crop.height, height - border)
    if min(right - left, bottom - top) < rules.ssim_window:
        return None
    scored = Box(left, top, right - left, bottom - top)
    return replace(rules, border="none").score(cut(result, scored), cut(truth, scored), scale)
