"""The classification task: what a whole image shows, compared with its label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassCohenKappa,
    MulticlassF1Score,
)

from geomoe.data.sample import Batch
from geomoe.metrics.average_accuracy import AverageAccuracy
from geomoe.models.registry import takes
from geomoe.tasks.class_task import ClassTask

__all__ = ["Classification"]

_SMOOTHING = 0.1


class Classification(ClassTask):
    """Training of a model that labels whole images; by default cross-entropy.

    Metrics are overall and average accuracy (``oa``, ``aa``), the mean F1 score of the classes that there
    are or that were said to be, Cohen's kappa, and the calibration error of the best class's probability over
    15 bins (``ece``, Guo et al. 2017). Where some classes are rare, average accuracy is also told of those
    with ``many``, ``medium`` and ``few`` training images (:func:`geomoe.metrics.shots.shots`).

    Args:
        model: name in the registry.
        bands: channels of the images.
        classes: their names.
        mean: what the model subtracts from images, band by band.
        std: what it then divides by.
        shares: of the classes among the training images; the largest is the baseline.
        sensors: whose bands the images stack, by name, with how many; for models that know them.
        recipe: see :class:`geomoe.tasks.task.Task`; losses are ``cross_entropy``, ``smoothed``, the same
            with a tenth of every label spread over all classes (Szegedy et al. 2016), and those of
            :data:`geomoe.tasks.long_tail.BY_SHARES`.
    """

    family = "classification"
    LOSSES = {  # noqa: RUF012
        "cross_entropy": F.cross_entropy,
        "smoothed": partial(F.cross_entropy, label_smoothing=_SMOOTHING),
    }
    monitor = "oa"
    from_data = ("bands", "classes", "mean", "std", "shares", "sensors")

    def __init__(
        self,
        model: str = "vit_ti",
        bands: int = 3,
        classes: Sequence[str] = (),
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
        shares: Sequence[float] = (),
        sensors: dict[str, int] | None = None,
        **recipe: Any,
    ) -> None:
        names = tuple(classes)
        facts = {"bands": bands, "classes": names, "mean": tuple(mean), "std": tuple(std)}
        known = {"sensors": dict(sensors)} if sensors and takes(model, "sensors") else {}
        super().__init__(model, {**facts, **known}, **recipe)
        self.classes, self.shares = names, tuple(shares)

    def given(self, batch: Batch) -> dict[str, Tensor]:
        told = getattr(self.model, "takes_present", False) and "present" in batch
        given = {"present": batch["present"]} if told else {}
        # A model that mixes samples while it learns has to mix their classes, too.
        learns = self.model.training and getattr(self.model, "takes_truth", False)
        return {**given, "truth": self.truth(batch)} if learns else given

    def mean_loss(self, losses: Tensor, truth: Tensor) -> Tensor:
        return losses.mean()

    def truth(self, batch: Batch) -> Tensor:
        return batch["label"]

    def metrics(self) -> MetricCollection:
        classes = len(self.classes)
        return MetricCollection(
            {
                "oa": MulticlassAccuracy(classes, average="micro"),
                "aa": AverageAccuracy(classes),
                "f1": MulticlassF1Score(classes),
                "kappa": MulticlassCohenKappa(classes),
                "ece": MulticlassCalibrationError(classes),
                **self.by_shots(),
            }
        )

    def metrics_by_class(self) -> MetricCollection:
        classes = len(self.classes)
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="none"),
                "f1": MulticlassF1Score(classes, average="none"),
            }
        )

    def by_item(self, answer: Tensor, batch: Batch) -> dict[str, Tensor]:
        right = (answer.argmax(1) == self.truth(batch)).float()
        return {"oa": right}

    def baseline(self, batch: Batch) -> Tensor:
        return self.prior(batch["image"].device).expand(len(batch["image"]), -1)
