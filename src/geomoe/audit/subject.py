"""What is audited: trained weights with their task, and samples whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from geomoe.audit.layers import Tally, layer_names
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
        facts: what else is known of samples, such as sensor, region or date, by the sample's name.
        seen: told how many samples of a pass over them are done, and how many there are.
    """

    model: LoadedModel
    samples: Named
    seed: int = 0
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    seen: Callable[[int, int], None] = lambda done, samples: None

    @cached_property
    def task(self) -> Task:
        """The model's task, in evaluation mode."""
        return family(self.model.card.task).task.of(self.model).eval()

    def batches(self) -> Iterator[tuple[list[str], Batch]]:
        """Names and values of some samples at a time; a batch is done when the next is asked for."""
        done, samples = 0, len(self.samples.samples)
        for names, batch in batches(self.samples.samples):
            yield names, batch
            done += len(names)
            self.seen(done, samples)

    @cached_property
    def tallies(self) -> dict[str, Tally]:
        """How each layer uses its experts over all samples, by the layer's name."""
        found: dict[str, Tally] = {}
        for names, batch in self.batches():
            trace = RoutingTrace()
            self.predict(batch, trace)
            for name, plan in zip(layer_names(self.model.model, trace), trace, strict=True):
                found.setdefault(name, Tally(plan.num_experts, plan.top_k)).add(plan, len(names))
        return found

    def predict(self, batch: Batch, trace: RoutingTrace | None = None) -> Tensor:
        """The model's prediction for a batch, as losses take it; the plans carried out are in ``trace``."""
        with torch.no_grad():
            return self.task.predict(batch, trace)

    def answer(self, batch: Batch, trace: RoutingTrace | None = None) -> Tensor:
        """What the model says of a batch, as metrics and people take it."""
        return self.task.answer(self.predict(batch, trace))

    def scores(self, answer: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Metrics of each sample, ``[B]``, the task's ``monitor`` among them."""
        return self.task.by_item(answer, batch)
