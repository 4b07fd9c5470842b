"""Panoptic quality (Kirillov et al., CVPR 2019), with segmentation and recognition quality."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torchmetrics.detection import PanopticQuality

__all__ = ["PanopticScores"]


class PanopticScores(PanopticQuality):
    """``pq``, ``sq`` and ``rq``, the means over classes; of things and of stuff apart, too.

    Of panoptic maps ``[B, H, W, 2]``; see :mod:`geomoe.layers.panoptic`. A class that is neither in the
    truths nor in what was said counts nowhere.

    Args:
        things: classes of which there are instances, in ``0..classes-1``.
        classes: how many there are; the others are stuff, one segment an image.
    """

    def __init__(self, things: Collection[int], classes: int) -> None:
        stuff = set(range(classes)) - set(things)
        super().__init__(set(things), stuff, return_sq_and_rq=True, return_per_class=True)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """By name; those of things are left out where there were none, and so are those of stuff."""
        each = super().compute()  # [classes, 3], things first
        there = self.true_positives + self.false_positives + self.false_negatives > 0
        is_thing = torch.arange(len(there), device=there.device) < len(self.things)
        found: dict[str, Tensor] = {}
        for ending, mine in (("", there), ("_things", there & is_thing), ("_stuff", there & ~is_thing)):
            if mine.any():
                values = each[mine].mean(0)
                found |= {f"{name}{ending}": values[i] for i, name in enumerate(("pq", "sq", "rq"))}
        return found
