"""Average accuracy over the classes that there are."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from torchmetrics.classification import MulticlassRecall

__all__ = ["AverageAccuracy"]


class AverageAccuracy(MulticlassRecall):
    """Mean over the classes that there are of the share of their samples, or pixels, that are right.

    The macro average of torchmetrics also counts a class that there is none of, as 0, once it is predicted.

    Args:
        classes: how many.
        options: of torchmetrics' ``MulticlassRecall``, such as ``ignore_index``.
    """

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(classes, average="none", **options)

    def compute(self) -> Tensor:
        """A scalar; nan if no class is there."""
        there = cast(Tensor, self.tp) + cast(Tensor, self.fn) > 0
        return super().compute()[there].mean()
