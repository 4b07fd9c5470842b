"""Pixel-adaptive refinement: what is said of a pixel becomes that of neighbours that look like it.

Ru, Zhan, Yu, Du, "Learning Affinity from Attention: End-to-End Weakly-Supervised Semantic Segmentation with
Transformers", CVPR 2022, equations 7 to 9. Neighbours are eight at each of several distances. Other than
there, the weights of a pixel's neighbours add up to 1 (there to 1.01), so that what is the same everywhere
stays what it is. Nothing is learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.layers.precision import at_least_single

__all__ = ["affinities", "refine"]

_LOOK, _PLACE = 0.3, 0.01
_TINY = 1e-8


def _offsets(dilations: Sequence[int]) -> Iterator[tuple[int, int]]:
    for step in dilations:
        yield from ((y * step, x * step) for y, x in product((-1, 0, 1), repeat=2) if (y, x) != (0, 0))


def _neighbours(x: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """``x`` ``[B, C, H, W]`` as each neighbour has it; beyond the border the edge goes on."""
    most, (height, width) = max(dilations), x.shape[2:]
    padded = F.pad(x, [most] * 4, mode="replicate")
    for y, z in _offsets(dilations):
        yield padded[..., most + y : most + y + height, most + z : most + z + width]


def affinities(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """How much each pixel takes of its neighbours, ``[B, 8 D, H, W]``, with sum 1.

    ``softmax(-mean over bands of (|dI| / (.3 std))²)``, std that of the neighbours of the pixel, and .01 of
    the same of distances.

    Args:
        image: ``[B, C, H, W]``.
        dilations: D distances, pixels.
    """
    image = at_least_single(image)
    around = list(_neighbours(image, dilations))
    spread = torch.stack(around).std(0).clamp_min(_TINY)
    looks = torch.stack([((near - image) / (_LOOK * spread)).square().mean(1) for near in around], 1)
    far = torch.tensor([(y * y + x * x) ** 0.5 for y, x in _offsets(dilations)], device=image.device)
    places = torch.softmax(-((far / (_LOOK * far.std())) ** 2), 0).view(-1, 1, 1)
    return (torch.softmax(-looks, 1) + _PLACE * places) / (1 + _PLACE)


def refine(
    values: Tensor, image: Tensor, dilations: Sequence[int] = (1, 4, 8, 12, 24), rounds: int = 10
) -> Tensor:
    """``values`` ``[B, C', H, W]`` after so many rounds in which each pixel takes what its neighbours have.

    Args:
        values: such as logits of classes.
        image: ``[B, C, H, W]``, by which neighbours are compared.
        dilations: distances of the neighbours, pixels.
        rounds: as many.
    """
    weights = affinities(image, dilations).to(values.dtype)
    for _ in range(rounds):
        new = torch.zeros_like(values)
        for number, near in enumerate(_neighbours(values, dilations)):
            new.addcmul_(near, weights[:, number : number + 1])
        values = new
    return values
