"""What computing in bfloat16 costs, measured, and put on the card of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from geomoe.evaluation.statistics import mean_interval
from geomoe.models import LoadedModel
from geomoe.models.weights import Card, save

if TYPE_CHECKING:
    from geomoe.evaluation.evaluation import Evaluation

__all__ = ["Loss", "loss_of", "write_loss"]


@dataclass(frozen=True)
class Loss:
    """What bfloat16 costs against float32, over samples.

    Attributes:
        loss: by how much the metric that ranks is better in float32, mean; of images PSNR in dB.
        low, high: its 95 % interval over samples.
        largest: difference of any number of an answer, such as a pixel or a probability, where 1 is 255.
    """

    loss: float
    low: float
    high: float
    largest: float


def loss_of(losses: Sequence[float], largest: float, sizes: Sequence[float] | None = None) -> Loss:
    """From what each sample lost, the largest difference, 0 to 1, and how much each counts, if not alike."""
    counts = None if sizes is None else np.array(sizes, dtype=np.float64)
    found = mean_interval(np.array([losses], dtype=np.float64), sizes=counts)
    return Loss(round(found.mean, 5), round(found.low, 5), round(found.high, 5), round(largest * 255, 2))


def write_loss(model: LoadedModel, found: Evaluation, root: Path, target: Path, hardware: str) -> Card:
    """Write weights anew with what bfloat16 costs them on their card; the tensors, and so the hash, stay.

    Args:
        model: that was scored.
        found: in bfloat16.
        root: the samples.
        target: file to write, ``.safetensors``; may be that of the weights.
        hardware: that it was measured on.
    """
    assert found.loss is not None
    measured = {
        **asdict(found.loss),
        "scored": found.scored,
        "data": root.resolve().name,
        "protocol": found.protocol,
        "degradation": found.degradation,
        "hardware": hardware,
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    half = model.card.recipe.get("stored") == "float16"
    return save(target, model.model, replace(model.card, bfloat16=measured), half)
