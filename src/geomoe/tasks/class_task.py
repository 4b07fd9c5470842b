"""What tasks have in common whose models choose between classes, of images or of pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric

from geomoe.errors import GeomoeError
from geomoe.metrics.shots import ShotAccuracy, shots
from geomoe.models.weights import LoadedModel
from geomoe.tasks.long_tail import BY_SHARES
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

    def mean_loss(self, losses: Tensor, truth: Tensor) -> Tensor:
        """The mean over samples of losses of single elements, 0 where there is no truth."""
        raise NotImplementedError(f"{type(self).__name__} must define mean_loss")

    def known_losses(self) -> Mapping[str, Callable[[Tensor, Tensor], Tensor]]:
        def of(name: str) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda logits, truth: self.mean_loss(BY_SHARES[name](logits, truth, self.shares), truth)

        return {**self.LOSSES, **{name: of(name) for name in BY_SHARES}}

    def by_shots(self, **options: Any) -> dict[str, Metric]:
        """Average accuracy of frequent, medium and rare classes, where some are rare."""
        groups = shots(self.shares)
        return {name: ShotAccuracy(len(self.classes), places, **options) for name, places in groups.items()}

    def answer(self, prediction: Tensor) -> Tensor:
        return prediction.float().softmax(1)

    def prior(self, device: torch.device) -> Tensor:
        """``[classes]``, the probability of each by its share alone."""
        shares = torch.tensor(self.shares, device=device)
        return shares / shares.sum()
