"""Images whose pixels have classes, made coarser, or with one class told from all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.data.labelled import Labelled, Whole
from geomoe.data.legend import IGNORED, Legend
from geomoe.errors import GeomoeError

__all__ = ["OTHER", "against_rest", "reduced"]

OTHER = "other"
"""Name of all classes but the one that is told from them."""

_OTHERS_COLOUR = "#dcdcdc"


def reduced(found: Labelled, factor: int) -> Labelled:
    """Each square of ``factor`` x ``factor`` pixels as one.

    Its value is the mean of those that are valid, its class the one that most of them have, or the first of
    several; a square without a known class has none. What is left at the right and below is cut off.

    Raises:
        GeomoeError: an image smaller than a square, or images of several sensors, whose pixels may be missing
            apart.
    """
    if factor == 1:
        return found
    if found.sensors:
        raise GeomoeError(f"data.reduce={factor}: {found.name} is of several sensors, and stays as it is")
    return _each(found, lambda one: _coarser(one, factor, len(found.legend.names)))


def _coarser(one: Whole, factor: int, classes: int) -> Whole:
    height, width = (side // factor * factor for side in one.mask.shape)
    if not height or not width:
        raise GeomoeError(f"data.reduce={factor}: {one.name} has {list(one.mask.shape)} pixels")
    valid = torch.ones(one.mask.shape) if one.valid is None else torch.from_numpy(one.valid).float()
    image, share = one.image[..., :height, :width].float(), _pooled(valid[:height, :width], factor)
    mean = _pooled(image * valid[:height, :width], factor) / share.clamp_min(1e-9)
    counts = torch.stack([_pooled((one.mask == c)[:height, :width].float(), factor) for c in range(classes)])
    mask = torch.where(counts.amax(0) > 0, counts.argmax(0), IGNORED).to(torch.int16)
    whole = mean if one.image.is_floating_point() else mean.round()
    return replace(
        one,
        image=whole.to(one.image.dtype),
        mask=mask,
        valid=None if one.valid is None else (share > 0).numpy(),
    )


def _pooled(of: Tensor, factor: int) -> Tensor:
    """``[..., H, W]`` to ``[..., H / factor, W / factor]``: means of squares."""
    return F.avg_pool2d(of.reshape(1, -1, *of.shape[-2:]), factor).reshape(
        *of.shape[:-2], of.shape[-2] // factor, of.shape[-1] // factor
    )


def against_rest(found: Labelled, name: str) -> Labelled:
    """Two classes: :data:`OTHER`, and the one of this ``name``.

    Raises:
        GeomoeError: there is none of this name.
    """
    legend = found.legend
    if name not in legend.names:
        raise GeomoeError(
            f"data.against_rest={name!r}: {found.name} has the classes {'; '.join(legend.names)}"
        )
    place = legend.names.index(name)
    two = Legend((OTHER, name), (0, 1), (_OTHERS_COLOUR, legend.colours[place]), ignored=None)
    made = _each(
        found,
        lambda one: replace(
            one, mask=torch.where(one.mask == IGNORED, one.mask, (one.mask == place).to(one.mask.dtype))
        ),
    )
    return replace(made, legend=two)


def _each(found: Labelled, change: Callable[[Whole], Whole]) -> Labelled:
    return replace(found, images=[change(one) for one in found.images])
