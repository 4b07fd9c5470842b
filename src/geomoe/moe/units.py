"""Units: an invertible view between an image and the rows that are routed."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["Neighbourhoods", "pixels_to_rows", "rows_to_pixels"]


def pixels_to_rows(x: Tensor) -> Tensor:
    """``[B, C, H, W]`` to one row a pixel, ``[B*H*W, C]``, in row-major order."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def rows_to_pixels(rows: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The inverse of :func:`pixels_to_rows`: ``[B*H*W, C]`` to ``[B, C, H, W]``."""
    batch, height, width = grid
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


class Neighbourhoods:
    """The k x k surroundings of chosen pixels, gathered only when asked for.

    A routed convolution must see each pixel's true neighbours, whichever expert those went to.
    Unfolding the whole image would cost ``k * k`` copies of it for every expert, so the image is
    padded once (with zeros, as a convolution pads) and rows are picked out by index.

    Args:
        x: ``[B, C, H, W]`` features.
        reach: largest ``k // 2`` that will be asked for.
    """

    def __init__(self, x: Tensor, reach: int) -> None:
        batch, channels, height, width = x.shape
        self.grid = (batch, height, width)
        self.reach = reach
        self.row = width + 2 * reach  # pixels from one padded line to the next
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, reach, reach, reach, reach))
        self.flat = padded.reshape(-1, channels)  # [B * (H + 2r) * (W + 2r), C]

    def gather(self, rows: Tensor, kernel_size: int) -> Tensor:
        """Neighbourhoods of pixels ``rows`` ``[n]`` as ``[n, k * k * C]``, kernel position first."""
        _, height, width = self.grid
        image, pixel = rows // (height * width), rows % (height * width)
        line, column = pixel // width, pixel % width
        centre = (image * (height + 2 * self.reach) + line + self.reach) * self.row + column + self.reach
        if kernel_size == 1:
            return self.flat[centre]
        steps = range(-(kernel_size // 2), kernel_size // 2 + 1)
        offsets = centre.new_tensor([dy * self.row + dx for dy in steps for dx in steps])  # [k * k]
        return self.flat[centre[:, None] + offsets].flatten(1)
