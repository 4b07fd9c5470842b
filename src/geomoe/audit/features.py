"""What is asked of the pixels that rows stand for: features of the image, and classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.audit.rows import Cells
from geomoe.data.sample import Batch

__all__ = ["FEATURES", "WINDOW", "Planes", "image_features", "image_planes", "row_features"]

FEATURES = ("brightness", "contrast", "edge strength", "spatial frequency")
WINDOW = 5
"""Pixels a side, in which contrast and frequency are taken."""

Planes = list[tuple[Tensor, Tensor | None]]
"""Values of pixels ``[B, F, H, W]``, and ``[B, H, W]`` where they are known; None for everywhere."""


def image_features(image: Tensor) -> Tensor:
    """What is asked of pixels: :data:`FEATURES`, ``[B, 4, H, W]``.

    Brightness is the mean over bands; contrast its standard deviation in 5 x 5 pixels; edge strength the
    magnitude of Sobel's gradient; spatial frequency is made of the energies of the Laplacian and of the
    gradient in 5 x 5 pixels, in radians a pixel: of a wave along an axis its own.

    Args:
        image: ``[B, C, H, W]``.
    """
    grey = image.float().mean(1, keepdim=True)
    window = (WINDOW, 1, WINDOW // 2)
    mean = F.avg_pool2d(grey, *window, count_include_pad=False)
    square = F.avg_pool2d((grey - mean) ** 2, *window, count_include_pad=False)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    smooth, step = torch.tensor([1.0, 2.0, 1.0]) / 4, torch.tensor([-1.0, 0.0, 1.0]) / 2
    across, curve = torch.outer(smooth, step), torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    kernels = torch.stack([across, across.T, curve])[:, None].to(grey)
    dx, dy, laplacian = F.conv2d(padded, kernels).split(1, 1)
    energy = dx**2 + dy**2
    bent, steep = (F.avg_pool2d(x, *window, count_include_pad=False) for x in (laplacian**2, energy))
    frequency = (
        2 * ((bent / steep.clamp_min(1e-12)).sqrt() / 2).atan()
    )  # 2 tan(w / 2) is the ratio of a wave w
    return torch.cat([grey, square.sqrt(), energy.sqrt(), frequency], 1)


def image_planes(batch: Batch, classes: int) -> Planes:
    """Features of a batch's images, and their classes where these are known."""
    shown = _class_planes(batch, classes)
    return [(image_features(batch["image"]), batch.get("valid")), *([] if shown is None else [shown])]


def row_features(cells: Cells, planes: Planes) -> tuple[Tensor, Tensor]:
    """``[N, F]`` means over the square of each row, and ``[N, F]`` 1 where they are known."""
    found = [cells.means(*each) for each in planes]
    known = [(share > 0)[:, None].float().expand_as(values) for values, share in found]
    return torch.cat([values for values, _ in found], 1), torch.cat(known, 1)


def _class_planes(batch: Batch, classes: int) -> tuple[Tensor, Tensor] | None:
    """``[B, classes, H, W]``, 1 where a pixel is of a class, and ``[B, H, W]`` where that is known."""
    if not classes or not ("mask" in batch or "label" in batch):
        return None
    mask = (
        batch["mask"]
        if "mask" in batch
        else batch["label"][:, None, None].expand(-1, *batch["image"].shape[2:])
    )
    known = mask >= 0
    if "valid" in batch:
        known = known & batch["valid"]
    return F.one_hot(mask.clamp_min(0), classes).permute(0, 3, 1, 2).float(), known
