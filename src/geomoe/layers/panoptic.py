"""Instances of pixels: what a mask holds of them, and how they are found by centres and offsets.

After Cheng et al., Panoptic-DeepLab, CVPR 2020: a heat-map whose peaks are the centres of things, and at each
pixel of a thing the way to its centre; no two sets have to be matched to learn them. Coordinates are rows and
columns, pixels. A panoptic map is ``[B, H, W, 2]`` int64, class and number of the instance of each pixel,
such as :class:`torchmetrics.detection.PanopticQuality` takes; below 0 is the class of a pixel that counts
nowhere.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "FARTHEST",
    "NEAREST",
    "REACH",
    "centre_targets",
    "components",
    "find_centres",
    "group_pixels",
    "panoptic_map",
    "segments_of",
]

FARTHEST, NEAREST = 64, 32
"""Rows and columns that a pixel may point away; how far from there its centre may be, pixels."""
_SIDE = 3
REACH = FARTHEST + NEAREST + _SIDE
"""How far away what is said of pixels decides of which instance one is, pixels."""
_AT_ONCE = 2**24
"""Distances of pixels to centres that are held."""


def components(mask: Tensor, things: Collection[int], least: int = 1) -> Tensor:
    """Numbers of instances from 1, ``[B, H, W]`` int64; 0 where there is none.

    An instance is what hangs together of a class, over the sides of pixels.

    Args:
        mask: ``[B, H, W]``, classes.
        things: those of which there are instances.
        least: pixels that an instance has at least.
    """
    found = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
    for thing in things:
        for numbers, labels in zip(found, _joined(mask == thing), strict=True):
            _, part, sizes = labels.unique(return_inverse=True, return_counts=True)
            kept = sizes >= least
            kept[part[labels == 0]] = False
            numbers += torch.where(kept, kept.cumsum(0) + numbers.max(), 0)[part]
    return found


def _joined(where: Tensor) -> Tensor:
    """The same number, above 0, at all pixels ``[B, H, W]`` that hang together; 0 where there is nothing."""
    labels = torch.arange(1, where[0].numel() + 1, device=where.device).view(1, *where.shape[1:]) * where
    while True:  # the largest number of each run of pixels in a row, then in a column
        spread = labels
        for dim in (1, 2):
            spread = torch.maximum(
                _onwards(spread, where, dim), _onwards(spread.flip(dim), where.flip(dim), dim).flip(dim)
            )
        if torch.equal(labels, spread):
            return labels
        labels = spread


def _onwards(labels: Tensor, where: Tensor, dim: int) -> Tensor:
    """The largest of labels so far within a run of pixels along ``dim``."""
    run = (~where).cumsum(dim) * (where[0].numel() + 1)
    return ((labels + run).cummax(dim).values - run) * where


def centre_targets(instances: Tensor, sigma: float = 8.0) -> tuple[Tensor, Tensor]:
    """What is learned of instances ``[B, H, W]``, numbered from 1.

    Args:
        instances: of each pixel.
        sigma: width of a peak, pixels.

    Returns:
        ``[B, 1, H, W]``, for each instance a Gaussian around the pixel in which its centre of mass lies, 1
        there; and ``[B, 2, H, W]``, the way from each of its pixels to that centre, 0 elsewhere.
    """
    batch, height, width = instances.shape
    rows, columns = (torch.arange(size, device=instances.device).float() for size in (height, width))
    heat = torch.zeros(batch, 1, height, width, device=instances.device)
    offsets = torch.zeros(batch, 2, height, width, device=instances.device)
    for b in range(batch):
        for number in instances[b][instances[b] > 0].unique():
            place = (instances[b] == number).nonzero()  # [n, 2]
            centre = place.float().mean(0)
            offsets[b, :, place[:, 0], place[:, 1]] = (centre - place).T
            y, x = centre.floor()
            peak = -((rows[:, None] - y).square() + (columns - x).square()) / (2 * sigma**2)
            heat[b, 0] = torch.maximum(heat[b, 0], peak.exp())
    return heat, offsets


def find_centres(heat: Tensor, threshold: float = 0.1) -> Tensor:
    """Peaks of a heat-map, ``[n, 2]``, the highest first.

    A peak is the highest within three pixels on all sides, so that it depends on these alone; of equal ones
    among them it is the first, from above and then from the left.

    Args:
        heat: ``[H, W]``.
        threshold: that a peak is above.
    """
    heat = heat.detach().float()
    around = F.pad(heat[None, None], (_SIDE,) * 4, value=-torch.inf)
    highest = F.max_pool2d(around, 2 * _SIDE + 1, 1)
    above = F.max_pool2d(around[..., : -_SIDE - 1, :], (_SIDE, 2 * _SIDE + 1), 1)
    before = F.max_pool2d(around[..., _SIDE:-_SIDE, : -_SIDE - 1], (1, _SIDE), 1)
    peaks = (heat == highest) & (heat > torch.maximum(above, before)) & (heat > threshold)
    places = peaks[0, 0].nonzero()
    highest_first: Tensor = places[heat[peaks[0, 0]].argsort(descending=True, stable=True)].float()
    return highest_first


def group_pixels(offsets: Tensor, centres: Tensor, where: Tensor) -> Tensor:
    """The number, from 1, of the centre that each pixel points nearest to; 0 elsewhere.

    Also 0 where a pixel points farther than :data:`FARTHEST` rows or columns, and where no centre is within
    :data:`NEAREST` pixels of where it points: so that an instance depends on its surroundings alone, and
    tiles of a scene agree on it.

    Args:
        offsets: ``[2, H, W]``, from each pixel to its centre.
        centres: ``[n, 2]``.
        where: ``[H, W]`` bool, the pixels that are asked for.
    """
    numbers = torch.zeros_like(where, dtype=torch.int64)
    where = where & (offsets.abs() <= FARTHEST).all(0)
    if len(centres):
        place = where.nonzero()
        aims = place + offsets[:, where].T
        each = [
            ((part[:, None] - centres).square().sum(2)).min(1)
            for part in aims.split(max(_AT_ONCE // len(centres), 1))
        ]
        apart, nearest = torch.cat([one.values for one in each]), torch.cat([one.indices for one in each])
        numbers[where] = torch.where(apart <= NEAREST**2, nearest + 1, 0)
    return numbers


def panoptic_map(classes: Tensor, heat: Tensor, offsets: Tensor, things: Collection[int]) -> Tensor:
    """``[B, H, W, 2]``, from what is said of pixels.

    Args:
        classes: ``[B, K, H, W]``, logits or probabilities.
        heat: ``[B, 1, H, W]``.
        offsets: ``[B, 2, H, W]``.
        things: classes of which there are instances. Pixels of one that find no centre are of the instance
            0, as all pixels of other classes are.
    """
    best = classes.argmax(1)
    where = torch.isin(best, torch.tensor(list(things), device=best.device))
    numbers = [
        group_pixels(way, find_centres(peaks[0]), here)
        for way, peaks, here in zip(offsets, heat, where, strict=True)
    ]
    return torch.stack([best, torch.stack(numbers)], -1)


def segments_of(mask: Tensor, things: Collection[int], least: int = 1) -> Tensor:
    """``[B, H, W, 2]`` of a mask ``[B, H, W]``; what is too small for an instance counts nowhere.

    Arguments as of :func:`components`.
    """
    numbers = components(mask, things, least)
    small = torch.isin(mask, torch.tensor(list(things), device=mask.device)) & (numbers == 0)
    return torch.stack([mask.masked_fill(small, -1), numbers], -1)
