"""How near the outlines of a map of classes are to the true ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

__all__ = ["BoundaryF", "outlines"]


def outlines(there: Tensor, known: Tensor) -> Tensor:
    """Pixels of a class, one of whose four neighbours is known to be of another class.

    Args:
        there: ``[..., H, W]`` bool, of the class.
        known: ``[..., H, W]`` bool, of any class; neither what is not known nor the edge makes outlines.

    Returns:
        ``[..., H, W]`` bool.
    """
    other = F.pad(known & ~there, (1, 1, 1, 1))
    beside = other[..., :-2, 1:-1] | other[..., 2:, 1:-1] | other[..., 1:-1, :-2] | other[..., 1:-1, 2:]
    return there & known & beside


class BoundaryF(Metric):
    """F measure of each class's outline (Csurka et al., BMVC 2013), ``[classes]`` in 0 to 1, of all images.

    Precision is the share of the outline that was said within ``reach`` pixels of the true one, in rows and
    in columns; recall that of the true one so near to what was said. A class that has neither is nan.

    Args:
        classes: how many.
        ignored: in the truth of a pixel without a class.
        reach: pixels.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, classes: int, ignored: int = -1, reach: int = 2) -> None:
        super().__init__()
        self.classes, self.ignored, self.reach = classes, ignored, reach
        self.add_state("counts", torch.zeros(4, classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, answer: Tensor, truth: Tensor) -> None:
        """Add images.

        Args:
            answer: ``[B, K, H, W]``, the more, the likelier the class.
            truth: ``[B, H, W]`` int64.
        """
        said, known = answer.argmax(1), truth != self.ignored
        for k in range(self.classes):
            ours, theirs = outlines(said == k, known), outlines(truth == k, known)
            near_ours, near_theirs = self._near(ours), self._near(theirs)
            pairs = (ours & near_theirs, ours, theirs & near_ours, theirs)
            self.counts[:, k] += torch.stack([pair.sum() for pair in pairs])

    def _near(self, outline: Tensor) -> Tensor:
        return F.max_pool2d(outline[:, None].float(), 2 * self.reach + 1, 1, self.reach)[:, 0] > 0

    def compute(self) -> Tensor:
        """``[classes]``."""
        right, ours, found, theirs = self.counts.double()
        precision, recall = right / ours.clamp_min(1), found / theirs.clamp_min(1)
        score: Tensor = 2 * precision * recall / (precision + recall).clamp_min(1e-12)
        return score.masked_fill(ours + theirs == 0, torch.nan).float()
