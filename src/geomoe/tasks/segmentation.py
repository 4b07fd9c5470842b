"""The segmentation task: what each pixel shows, compared with a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)

from geomoe.data.legend import IGNORED
from geomoe.data.sample import Batch
from geomoe.errors import GeomoeError
from geomoe.metrics.average_accuracy import AverageAccuracy
from geomoe.models.weights import LoadedModel
from geomoe.moe.plan import RoutingTrace
from geomoe.tasks.task import Task

__all__ = ["Segmentation", "cross_entropy", "dice"]


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over samples of the mean over their pixels with a class; 0 of a sample that has none.

    Args:
        logits: ``[B, classes, H, W]``.
        truth: ``[B, H, W]`` int64, :data:`geomoe.data.legend.IGNORED` where there is no class.
    """
    of_pixels = F.cross_entropy(logits, truth, ignore_index=IGNORED, reduction="none")  # [B, H, W]
    return (of_pixels.sum((1, 2)) / (truth != IGNORED).sum((1, 2)).clamp_min(1)).mean()


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over samples of 1 less the soft Dice score of their classes (Milletari et al. 2016).

    Of the pixels with a class, and of the classes that a sample has; 0 of a sample that has none. As
    :func:`cross_entropy`.
    """
    known = (truth != IGNORED)[:, None]
    shares = logits.float().softmax(1) * known
    classes = F.one_hot(truth.clamp_min(0), logits.shape[1]).permute(0, 3, 1, 2) * known
    both, either = (shares * classes).sum((2, 3)), (shares + classes).sum((2, 3))  # [B, classes]
    there = classes.sum((2, 3)) > 0
    missed = (1 - 2 * both / either.clamp_min(1e-6)) * there
    return (missed.sum(1) / there.sum(1).clamp_min(1)).mean()


class Segmentation(Task):
    """Training of a model that gives the classes of pixels; by default cross-entropy.

    Metrics are over all pixels with a class: overall and average accuracy (``oa``, ``aa``), Cohen's kappa,
    and the mean over classes of intersection over union (``miou``). A class counts in ``aa``
    where it is, and in ``miou`` also where it was said to be.

    Args:
        model: name in the registry.
        bands: channels of the images.
        classes: their names.
        colours: of the classes, as ``#rrggbb``.
        mean: what the model subtracts from images, band by band.
        std: what it then divides by.
        shares: of the classes among the training pixels; the largest is the baseline.
        recipe: see :class:`geomoe.tasks.task.Task`; losses are ``cross_entropy`` and ``dice``.
    """

    family = "segmentation"
    LOSSES = {"cross_entropy": cross_entropy, "dice": dice}  # noqa: RUF012
    monitor = "oa"
    base = "the largest class"
    from_data = ("bands", "classes", "colours", "mean", "std", "shares")

    def __init__(
        self,
        model: str = "unet",
        bands: int = 3,
        classes: Sequence[str] = ("0", "1"),
        colours: Sequence[str] = (),
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
        shares: Sequence[float] = (),
        **recipe: Any,
    ) -> None:
        names = tuple(classes)
        facts = {"bands": bands, "classes": names, "colours": tuple(colours), "mean": tuple(mean)}
        super().__init__(model, {**facts, "std": tuple(std)}, **recipe)
        self.classes, self.shares = names, tuple(shares)

    @classmethod
    def of(cls, weights: LoadedModel) -> Segmentation:
        task = super().of(weights)
        assert isinstance(task, Segmentation)
        task.classes = weights.outputs["classes"].classes
        shares = weights.card.data.get("classes")
        if not isinstance(shares, dict) or tuple(shares) != task.classes:
            raise GeomoeError(f"the card of {weights.name} does not say how its classes were shared out")
        task.shares = tuple(shares.values())
        return task

    def predict(self, batch: Batch, trace: RoutingTrace | None = None) -> Tensor:
        prediction: Tensor = self.model(batch["image"], trace=trace, valid=batch.get("valid"))
        return prediction

    def truth(self, batch: Batch) -> Tensor:
        mask = batch["mask"]
        return mask.masked_fill(~batch["valid"], IGNORED) if "valid" in batch else mask

    def answer(self, prediction: Tensor) -> Tensor:
        return prediction.float().softmax(1)

    def metrics(self) -> MetricCollection:
        classes = len(self.classes)
        known: dict[str, Any] = {"num_classes": classes, "ignore_index": IGNORED}
        return MetricCollection(
            {
                "oa": MulticlassAccuracy(average="micro", **known),
                "aa": AverageAccuracy(classes, ignore_index=IGNORED),
                "kappa": MulticlassCohenKappa(**known),
                "miou": MulticlassJaccardIndex(average="macro", **known),
            }
        )

    def metrics_by_class(self) -> MetricCollection:
        known: dict[str, Any] = {"num_classes": len(self.classes), "ignore_index": IGNORED, "average": "none"}
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(**known),
                "f1": MulticlassF1Score(**known),
                "iou": MulticlassJaccardIndex(**known),
            }
        )

    def by_item(self, answer: Tensor, batch: Batch) -> dict[str, Tensor]:
        truth = self.truth(batch)
        right = (answer.argmax(1) == truth).sum((1, 2))
        return {"oa": right / (truth != IGNORED).sum((1, 2))}

    def sizes(self, batch: Batch) -> Tensor:
        return (self.truth(batch) != IGNORED).sum((1, 2))

    def baseline(self, batch: Batch) -> Tensor:
        image = batch["image"]
        prior = torch.tensor(self.shares, device=image.device)
        return (prior / prior.sum()).view(1, -1, 1, 1).expand(len(image), -1, *image.shape[2:])
