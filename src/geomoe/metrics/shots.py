"""Average accuracy of the frequent, the medium and the rare classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor
from torchmetrics.classification import MulticlassRecall

__all__ = ["SHOTS", "ShotAccuracy", "shots"]

SHOTS = ("many", "medium", "few")
_MANY, _FEW = 1 / 3, 1 / 10


def shots(counts: Sequence[float]) -> dict[str, list[int]]:
    """Places of the classes in groups by how many training samples they have.

    ``many`` has those with at least a third as many as the largest class, ``few`` those with at most a tenth,
    ``medium`` the others (Liu et al. 2019 have the groups, and numbers for a larger data set). Empty where no
    class is so rare.
    """
    largest = max(counts, default=0)
    groups: dict[str, list[int]] = {name: [] for name in SHOTS}
    for place, number in enumerate(counts):
        name = "many" if number >= _MANY * largest else "few" if number <= _FEW * largest else "medium"
        groups[name].append(place)
    return {name: places for name, places in groups.items() if places} if groups["few"] else {}


class ShotAccuracy(MulticlassRecall):
    """Mean over some classes of the share of their samples, or pixels, that are right.

    Of those of them that there are; 0 if there is none.

    Args:
        classes: how many there are in all.
        chosen: places of those that count.
        options: of torchmetrics' ``MulticlassRecall``, such as ``ignore_index``.
    """

    def __init__(self, classes: int, chosen: Sequence[int], **options: Any) -> None:
        super().__init__(classes, average="none", **options)
        self.chosen = list(chosen)

    def compute(self) -> Tensor:
        """A scalar."""
        there = (cast(Tensor, self.tp) + cast(Tensor, self.fn) > 0)[self.chosen]
        return (super().compute()[self.chosen] * there).sum() / there.sum().clamp_min(1)
