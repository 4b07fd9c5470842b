"""Windows: padding an image to whole windows, cutting it into them, and putting it together again.

Shapes here are channels-last, ``[B, H, W, C]``: what linear layers and layer norms want, and what
a channels-last convolution sees after a free ``permute``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Border",
    "crop_to",
    "in_windows",
    "merge_windows",
    "pad_to_multiple",
    "pad_to_windows",
    "partition_windows",
    "relative_position_index",
]

Border = Literal["features", "published", "swinir"]
"""What becomes of the strips, at the bottom and on the right, that fill an image up to whole windows.

``features``: mirrored, and cut off the features before the head, so that no result is made of them.
``published``: mirrored, and cut off the image, as the published programs do: the last rows and columns of it
(5, 7 and 11 at x2, x3 and x4 with a classical head) are made of the mirrored strips too. ``swinir``: the same
with the edge pixel repeated, and a whole window more where none is needed, as in SwinIR's test program, which
its published scores come from.
"""


def _mirrored(size: int, target: int, device: torch.device, repeated: bool = False) -> Tensor:
    """Indices ``0..size-1`` continued to ``target`` by mirroring, the edge pixel ``repeated`` or not.

    Unlike ``F.pad(mode="reflect")`` this has no lower bound on ``size``: 1 pixel is repeated.
    """
    period = 2 * size if repeated else max(2 * (size - 1), 1)
    index = torch.arange(target, device=device) % period
    return torch.where(index < size, index, period - index - int(repeated))


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Mirror ``x`` ``[B, C, H, W]`` on its bottom and right to whole multiples of ``multiple``."""
    for dim in (2, 3):
        size = x.shape[dim]
        target = -(-size // multiple) * multiple
        if target != size:
            x = x.index_select(dim, _mirrored(size, target, x.device))
    return x


def pad_to_windows(x: Tensor, window: int, border: Border) -> Tensor:
    """``x`` ``[B, C, H, W]`` filled up to whole windows at its bottom and right; see :data:`Border`."""
    if border != "swinir":
        return pad_to_multiple(x, window)
    for dim in (2, 3):
        size = x.shape[dim]
        x = x.index_select(dim, _mirrored(size, (size // window + 1) * window, x.device, repeated=True))
    return x


def crop_to(y: Tensor, x: Tensor, scale: int = 1) -> Tensor:
    """The part of ``y`` ``[B, C, ...]`` that is ``scale`` times as high and wide as ``x``."""
    return y[..., : scale * x.shape[-2], : scale * x.shape[-1]]


def partition_windows(x: Tensor, size: int) -> Tensor:
    """``[B, H, W, C]`` to ``[B, H/size, W/size, size*size, C]``."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.transpose(2, 3).reshape(batch, height // size, width // size, size * size, channels)


def merge_windows(windows: Tensor, size: int) -> Tensor:
    """The inverse of :func:`partition_windows`."""
    batch, rows, columns, _, channels = windows.shape
    x = windows.view(batch, rows, columns, size, size, channels)
    return x.transpose(2, 3).reshape(batch, rows * size, columns * size, channels)


def in_windows(run: Callable[[Tensor], Tensor], x: Tensor, size: int, scale: int = 1) -> Tensor:
    """``run`` on every window of ``x`` ``[B, H, W, C]``, each as an image ``[n, size, size, C]`` of its own.

    What is missing in the last windows is mirrored, and cut off what comes out.

    Args:
        run: makes ``[n, size / scale, size / scale, C']`` of them.
        x: any image.
        size: of a window.
        scale: pixels of ``x`` along a side for one of the result.

    Returns:
        ``[B, H / scale, W / scale, C']``, rounded up.
    """
    height, width = (-(-side // scale) for side in x.shape[1:3])
    whole = pad_to_multiple(x.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1).contiguous()
    cut = partition_windows(whole, size)  # [B, rows, columns, size * size, C]
    done = run(cut.flatten(0, 2).unflatten(1, (size, size)))
    merged = merge_windows(done.flatten(1, 2).unflatten(0, cut.shape[:3]), size // scale)
    return merged[:, :height, :width]


def relative_position_index(query: int, key: int) -> Tensor:
    """``[query**2, key**2]``: for every pair of positions, its entry in a table of ``(query + key - 1)**2``.

    Query and key windows are concentric squares; ``query == key`` is the table of Swin.
    """
    q, k = torch.arange(query), torch.arange(key)
    offset = k[None, :] - q[:, None] + query - 1  # [query, key], from 0
    pair = offset[:, None, :, None] * (query + key - 1) + offset[None, :, None, :]
    return pair.reshape(query**2, key**2)
