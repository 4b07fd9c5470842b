"""What is audited: trained weights with their task, and samples whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from geomoe.data.sample import Batch
from geomoe.evaluation.samples import batches
from geomoe.models.weights import LoadedModel
from geomoe.moe.plan import RoutingTrace
from geomoe.tasks.families import family
from geomoe.tasks.stream import Named
from geomoe.tasks.task import Task

__all__ = ["Subject"]


@dataclass
class Subject:
    """Weights and samples that the sections of an audit look at.

    Samples are read batch by batch and forgotten, so that memory does not grow with their number.

    Attributes:
        model: from :func:`geomoe.load`.
        samples: whose truth is known.
        seed: of all that is drawn.
    """

    model: LoadedModel
    samples: Named
    seed: int = 0

    @cached_property
    def task(self) -> Task:
        """The model's task, in evaluation mode."""
        return family(self.model.card.task).task.of(self.model).eval()

    def batches(self) -> Iterator[tuple[list[str], Batch]]:
        """Names and values of some samples at a time."""
        return batches(self.samples.samples)

    def answer(self, batch: Batch, trace: RoutingTrace | None = None) -> Tensor:
        """What the model says of a batch; the plans that it carried out are in ``trace``."""
        with torch.inference_mode():
            return self.task.answer(self.task.predict(batch, trace))

    def scores(self, answer: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Metrics of each sample, ``[B]``, the task's ``monitor`` among them."""
        return self.task.by_item(answer, batch)
