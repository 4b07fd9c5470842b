"""What tasks have in common whose models choose between classes, of images or of pixels."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.models.weights import LoadedModel
from geomoe.tasks.task import Task

__all__ = ["ClassTask"]


class ClassTask(Task):
    """A task with ``classes``, their names, and ``shares`` in training; the largest is the baseline."""

    base = "the largest class"
    classes: tuple[str, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, weights: LoadedModel) -> Self:
        task = super().of(weights)
        [output] = weights.contract.outputs.values()
        task.classes = output.classes
        shares = weights.card.data.get("classes")
        if not isinstance(shares, dict) or tuple(shares) != task.classes:
            raise GeomoeError(f"the card of {weights.name} does not say how its classes were shared out")
        task.shares = tuple(shares.values())
        return task

    def answer(self, prediction: Tensor) -> Tensor:
        return prediction.float().softmax(1)

    def prior(self, device: torch.device) -> Tensor:
        """``[classes]``, the probability of each by its share alone."""
        shares = torch.tensor(self.shares, device=device)
        return shares / shares.sum()
