"""Samples: what a task is shown, as named tensors with torchgeo's keys.

=========== ============================================================================================
``image``    ``[C, H, W]`` in about 0..1, what the model is given
``target``   numbers that it should give: of super-resolution the fine image, ``[C, s H, s W]`` in 0..1
``label``    int64 scalar, the class of the whole image
``mask``     int64 ``[H, W]``, the class of each pixel from 0; -1 where it is not known or not to be looked at
``valid``    bool ``[H, W]``, the pixels of ``image`` that there are; the others count nowhere
``known``    ``[WIDTH]`` facts of the image, encoded as by :class:`geomoe.layers.super_resolution.known.Known`
=========== ============================================================================================

A batch has the same keys, and one more dimension in front.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["Batch", "Sample"]

Sample = dict[str, Tensor]
Batch = dict[str, Tensor]
