"""The segmentation task: what each pixel shows, compared with a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryF1Score,
    BinaryJaccardIndex,
    MulticlassAccuracy,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)
from torchmetrics.wrappers import LambdaInputTransformer

from geomoe.data.legend import IGNORED
from geomoe.data.sample import Batch
from geomoe.layers.pixel_losses import (
    boundary,
    cross_entropy,
    dice,
    hard_pixels,
    lovasz,
    over_pixels,
    smoothed,
)
from geomoe.metrics.average_accuracy import AverageAccuracy
from geomoe.metrics.boundary import BoundaryF
from geomoe.metrics.panoptic import PanopticScores
from geomoe.models.registry import takes
from geomoe.tasks.class_task import ClassTask

__all__ = ["Segmentation"]


def _second(answer: Tensor) -> Tensor:
    """Of two classes, whether each pixel is of the second: ``[B, 2, H, W]`` to ``[B, H, W]``."""
    return answer.argmax(1)


class Segmentation(ClassTask):
    """Training of a model that gives the classes of pixels; by default cross-entropy.

    Metrics are over all pixels with a class: overall and average accuracy (``oa``, ``aa``), Cohen's
    kappa, and the means over classes of intersection over union (``miou``) and F1 (``mf1``). A class counts
    in ``aa`` where it is, and in the means also where it was said to be. Of two classes the second one is
    what is looked for, such as what changed: ``f1`` and ``iou`` are of it alone, and the best weights are
    those of the best ``f1``. Evaluation adds accuracy, F1, IoU and the F measure of outlines of each class,
    and of a model that has ``instances`` panoptic quality.

    Args:
        model: name in the registry.
        bands: channels of the images.
        classes: their names.
        colours: of the classes, as ``#rrggbb``.
        mean: what the model subtracts from images, band by band.
        std: what it then divides by.
        shares: of the classes among the training pixels; the largest is the baseline.
        sensors: whose bands the images stack, by name, with how many; for models that know them.
        domains: places, the folders of the training images; for models that know them.
        recipe: see :class:`geomoe.tasks.task.Task`; losses are those of :mod:`geomoe.layers.pixel_losses`
            and of :data:`geomoe.tasks.long_tail.BY_SHARES`.
    """

    family = "segmentation"
    LOSSES = {  # noqa: RUF012
        "cross_entropy": cross_entropy, "smoothed": smoothed, "dice": dice, "hard_pixels": hard_pixels,
        "lovasz": lovasz, "boundary": boundary,
    }  # fmt: skip
    monitor = "oa"
    from_data = ("bands", "classes", "colours", "mean", "std", "shares", "sensors", "domains")

    def __init__(
        self,
        model: str = "unet",
        bands: int = 3,
        classes: Sequence[str] = ("0", "1"),
        colours: Sequence[str] = (),
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
        shares: Sequence[float] = (),
        sensors: dict[str, int] | None = None,
        domains: Sequence[str] = (),
        **recipe: Any,
    ) -> None:
        names = tuple(classes)
        facts = {"bands": bands, "classes": names, "colours": tuple(colours), "mean": tuple(mean)}
        known: dict[str, Any] = {"sensors": dict(sensors or {}), "domains": tuple(domains)}
        known = {name: value for name, value in known.items() if value and takes(model, name)}
        super().__init__(model, {**facts, "std": tuple(std), **known}, **recipe)
        self.classes, self.shares = names, tuple(shares)

    def given(self, batch: Batch) -> dict[str, Tensor]:
        told = [name for name in ("present", "domain") if getattr(self.model, f"takes_{name}", False)]
        given = {name: batch[name] for name in ("valid", *told) if name in batch}
        if getattr(self.model, "takes_wanted", False) and "mask" in batch:
            given["wanted"] = self.truth(batch) != IGNORED  # what has no class enters no loss and no metric
        return given

    def truth(self, batch: Batch) -> Tensor:
        mask = batch["mask"]
        for there in (batch.get("valid"), batch["present"].any(1) if "present" in batch else None):
            mask = mask if there is None else mask.masked_fill(~there, IGNORED)
        return mask

    def mean_loss(self, losses: Tensor, truth: Tensor) -> Tensor:
        return over_pixels(losses, truth)

    @property
    def chosen_by(self) -> str:
        """Of two classes ``f1`` of the second, which may be so rare that it is mostly right to deny it."""
        return "f1" if len(self.classes) == 2 else self.monitor

    def metrics(self) -> MetricCollection:
        classes = len(self.classes)
        known: dict[str, Any] = {"num_classes": classes, "ignore_index": IGNORED}
        second = {
            "f1": BinaryF1Score(ignore_index=IGNORED),
            "iou": BinaryJaccardIndex(ignore_index=IGNORED),
        }
        return MetricCollection(
            {
                "oa": MulticlassAccuracy(average="micro", **known),
                "aa": AverageAccuracy(classes, ignore_index=IGNORED),
                "kappa": MulticlassCohenKappa(**known),
                "miou": MulticlassJaccardIndex(average="macro", **known),
                "mf1": MulticlassF1Score(average="macro", **known),
                **(
                    {n: LambdaInputTransformer(m, _second) for n, m in second.items()} if classes == 2 else {}
                ),
            }
        )

    def metrics_by_class(self) -> MetricCollection:
        known: dict[str, Any] = {"num_classes": len(self.classes), "ignore_index": IGNORED, "average": "none"}
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(**known),
                "f1": MulticlassF1Score(**known),
                "iou": MulticlassJaccardIndex(**known),
                "boundary_f": BoundaryF(len(self.classes), IGNORED),
            }
        )

    def instance_metrics(self) -> Metric | None:
        things = getattr(self.model, "things", ())
        return PanopticScores(things, len(self.classes)) if things else None

    def instances(self, batch: Batch) -> tuple[Tensor, Tensor]:
        said: Tensor = self.model.instances(batch["image"], **self.given(batch))  # type: ignore[operator]
        return said, self.model.true_instances(self.truth(batch))  # type: ignore[operator]

    def by_item(self, answer: Tensor, batch: Batch) -> dict[str, Tensor]:
        truth = self.truth(batch)
        right = (answer.argmax(1) == truth).sum((1, 2))
        return {"oa": right / (truth != IGNORED).sum((1, 2))}

    def sizes(self, batch: Batch) -> Tensor:
        return (self.truth(batch) != IGNORED).sum((1, 2))

    def baseline(self, batch: Batch) -> Tensor:
        image = batch["image"]
        return self.prior(image.device).view(1, -1, 1, 1).expand(len(image), -1, *image.shape[2:])
