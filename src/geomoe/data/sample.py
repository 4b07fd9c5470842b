"""Samples: what a task is shown, as named tensors with torchgeo's keys.

=========== ============================================================================================
``image``    ``[C, H, W]`` in about 0..1, what the model is given
``target``   numbers that it should give: of super-resolution the fine image, ``[C, s H, s W]`` in 0..1
``label``    int64 scalar, the class of the whole image
``mask``     int64 ``[H, W]``, the class of each pixel from 0; -1 where it is not known or not to be looked at
``domain``   int64 scalar, of several satellites or places the one that the image is of, from 0
``valid``    bool ``[H, W]``, the pixels of ``image`` that there are; the others count nowhere
``present``  bool ``[S, H, W]``, the pixels that each of several sensors has, whose bands ``image`` stacks
``hidden``   bool ``[h, w]``, the squares of ``image`` that a masked autoencoder is not shown
``known``    ``[WIDTH]`` facts of the image, encoded as by :class:`geomoe.layers.super_resolution.known.Known`
=========== ============================================================================================

A batch has the same keys, and one more dimension in front.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from torch import Tensor

__all__ = ["Batch", "Lazy", "Sample"]

Sample = dict[str, Tensor]
Batch = dict[str, Tensor]


class Lazy(Sequence[tuple[str, Sample]]):
    """Samples that are read one by one, whenever they are asked for, and held by nobody here.

    Args:
        read: the sample of a place, with its name; always the same one.
        places: of all that there are, in their order.
    """

    def __init__(self, read: Callable[[int], tuple[str, Sample]], places: Sequence[int]) -> None:
        self._read, self.places = read, places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> tuple[str, Sample]: ...

    @overload
    def __getitem__(self, index: slice) -> Lazy: ...

    def __getitem__(self, index: int | slice) -> tuple[str, Sample] | Lazy:
        if isinstance(index, slice):
            return Lazy(self._read, self.places[index])
        return self._read(self.places[index])
