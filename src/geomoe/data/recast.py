"""Images whose pixels have classes, made coarser, or with one class told from all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
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
    valid = None if one.valid is None else torch.from_numpy(one.valid)[:height, :width]
    image = one.image[..., :height, :width].float()
    share = torch.tensor(1.0) if valid is None else _mean(valid.float(), factor)
    mean = _mean(image if valid is None else image * valid, factor) / share.clamp_min(1e-9)
    known = one.mask[:height, :width]
    counts = torch.stack([_mean((known == c).float(), factor) for c in range(classes)])
    mask = torch.where(counts.amax(0) > 0, counts.argmax(0), IGNORED).to(torch.int16)
    whole = mean if one.image.is_floating_point() else mean.round()
    return replace(
        one,
        image=whole.to(one.image.dtype),
        mask=mask,
        valid=None if one.valid is None else (share > 0).numpy(),
    )


def _mean(of: Tensor, factor: int) -> Tensor:
    """``[..., H, W]`` to ``[..., H / factor, W / factor]``: means of squares."""
    places = range(factor)
    total: Tensor = sum(of[..., y::factor, x::factor] for y in places for x in places)  # type: ignore[assignment]
    return total / factor**2


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
