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
    from geomoe.evaluation.super_resolution.evaluate import Evaluation

__all__ = ["Loss", "loss_of", "write_loss"]


@dataclass(frozen=True)
class Loss:
    """What bfloat16 costs against float32, over images.

    Attributes:
        loss: PSNR in float32 less that in bfloat16, dB, mean.
        low, high: its 95 % interval over images.
        largest: difference of any pixel, in levels of 255.
    """

    loss: float
    low: float
    high: float
    largest: float


def loss_of(losses: Sequence[float], largest: float) -> Loss:
    """From what each image lost, dB, and the largest difference of a pixel, in levels of 255."""
    found = mean_interval(np.array([losses], dtype=np.float64))
    return Loss(round(found.mean, 5), round(found.low, 5), round(found.high, 5), round(largest, 2))


def write_loss(model: LoadedModel, found: Evaluation, root: Path, target: Path, hardware: str) -> Card:
    """Write weights anew with what bfloat16 costs them on their card; the tensors, and so the hash, stay.

    Args:
        model: that was scored.
        found: in bfloat16.
        root: the images.
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
