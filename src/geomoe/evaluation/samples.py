"""Scoring weights of any task on samples whose truth is known, beside the task's baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geomoe.data.images import to_unit
from geomoe.data.sample import Batch, Sample
from geomoe.data.split import Split
from geomoe.errors import GeomoeError
from geomoe.evaluation.evaluation import Evaluation
from geomoe.evaluation.precision import Loss, loss_of
from geomoe.evaluation.scores import ItemScores, Scores
from geomoe.evaluation.statistics import bootstrap_interval
from geomoe.metrics.measures import measure
from geomoe.models import LoadedModel
from geomoe.models.device import pick_device
from geomoe.models.precision import Precision, computing_in, pick_precision
from geomoe.printable import counted
from geomoe.tasks.families import family
from geomoe.tasks.stream import Named
from geomoe.tasks.task import Task

__all__ = ["SampleScores", "batches", "evaluate_samples", "score_samples"]

_PIXELS = 2**18
"""Of a batch at most: 64 images of 64 x 64."""


def evaluate_samples(
    model: LoadedModel,
    root: str | Path,
    *,
    split: Split = "test",
    device: str = "auto",
    precision: Precision = "float32",
    skip_corrupt: bool = False,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    without: Sequence[str] = (),
    other_sensor: bool = False,
) -> Evaluation:
    """As :func:`geomoe.evaluate`, by the task and the data of the model's family alone.

    ``without`` names sensors that are taken away from every sample; with ``other_sensor`` images are seen as
    :func:`geomoe.data.other_sensor.as_other_sensor` makes them.
    """
    of = family(model.card.task)
    task = of.task.of(model)
    named = of.data.named(Path(root), split, model, skip_corrupt=skip_corrupt, say=say)
    if without:
        named = named.without(without, model.model.config.mean)  # type: ignore[arg-type]
    named = named.of_other_sensor() if other_sensor else named
    changes = [f"without {', '.join(without)}"] if without else []
    place = pick_device(device)
    pick_precision(precision, place, measured=False)
    task.to(place).eval()

    def there(batch: Batch) -> Batch:
        return {key: value.to(place) for key, value in batch.items()}

    def answered(batch: Batch, precision: Precision = precision) -> Tensor:
        with torch.inference_mode(), computing_in(precision, place):
            prediction = task.predict(there(batch))
        return task.answer(prediction).cpu()

    def instances(batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), computing_in(precision, place):
            said, true = task.instances(there(batch))
        return said.cpu(), true.cpu()

    exact = None if precision == "float32" else partial(answered, precision="float32")
    found = score_samples(task, named, answered, progress, exact, instances)
    classes = [name for output in model.contract.outputs.values() for name in output.classes]
    return Evaluation(
        weights=model.name,
        hash=model.hash,
        task=model.card.task,
        data=named.data,
        sensor=named.sensor,
        gsd=named.gsd,
        scored=f"{counted(len(found.by_item), f'{split} sample')} of {named.data}",
        degradation=", ".join([*changes, *(["as another sensor"] if other_sensor else [])]),
        protocol=task.protocol_name,
        precision=precision,
        loss=found.loss,
        ranks=task.monitor,
        base=task.base,
        overall=found.overall,
        interval=bootstrap_interval(
            np.array([item[task.monitor] for item in found.by_item.values()]),
            sizes=np.array(list(found.sizes.values())),
        ),
        by_class={name: found.by_class[i] for i, name in enumerate(classes) if i in found.by_class},
        by_item=found.by_item,
        sizes=found.sizes,
    )


@dataclass(frozen=True)
class SampleScores:
    """What :func:`score_samples` found.

    Attributes:
        overall: over all samples.
        by_class: of each class that there is, by its place.
        by_item: metrics of each sample that has a truth, as of :meth:`geomoe.tasks.task.Task.by_item`.
        sizes: how much each of them counts.
        loss: what the precision of the answers costs, where there are exact ones.
    """

    overall: Scores
    by_class: dict[int, Scores]
    by_item: ItemScores
    sizes: dict[str, float]
    loss: Loss | None = None


def score_samples(
    task: Task,
    named: Named,
    answered: Callable[[Batch], Tensor],
    progress: Callable[[int, int], None] | None = None,
    exact: Callable[[Batch], Tensor] | None = None,
    instances: Callable[[Batch], tuple[Tensor, Tensor]] | None = None,
) -> SampleScores:
    """Compare answers with what samples are, by the metrics of a task, beside its baseline.

    Args:
        task: what is compared, and how.
        named: samples.
        answered: what is said of a batch, as of :meth:`geomoe.tasks.task.Task.answer`.
        progress: called with samples done and samples in all.
        exact: what would be said of it in float32, where ``answered`` is not.
        instances: of a batch, as of :meth:`geomoe.tasks.task.Task.instances`; asked for where the task has
            metrics of them.

    Raises:
        GeomoeError: no sample has a truth.
    """
    scores, base, by_class = task.metrics(), task.metrics(), task.metrics_by_class()
    of_instances = None if instances is None else task.instance_metrics()
    by_item: ItemScores = {}
    sizes: dict[str, float] = {}
    truths, losses = [], []
    done, largest = 0, 0.0
    for names, batch in batches(named.samples):
        answer, truth = answered(batch), task.truth(batch)
        scores.update(answer, truth)
        base.update(task.baseline(batch), truth)
        if by_class is not None:
            by_class.update(answer, truth)
            truths.append(truth[truth >= 0])  # below 0 is what counts nowhere
        if instances is not None and of_instances is not None:
            of_instances.update(*instances(batch))
        columns = {metric: values.tolist() for metric, values in task.by_item(answer, batch).items()}
        for i, (name, size) in enumerate(zip(names, task.sizes(batch).tolist(), strict=True)):
            if size > 0:
                by_item[name] = {metric: values[i] for metric, values in columns.items()}
                sizes[name] = size
        if exact is not None:
            best = exact(batch)
            largest = max(largest, float((best - answer).abs().max()))
            kept = zip(names, task.by_item(best, batch)[task.monitor].tolist(), strict=True)
            losses += [
                measure(task.monitor).gain(value, by_item[name][task.monitor])
                for name, value in kept
                if name in by_item
            ]
        done += len(names)
        if progress:
            progress(done, len(named.samples))
    if not by_item:
        raise GeomoeError(f"no sample of {named.data} has a truth to be scored by")
    found, other = ({n: float(v) for n, v in m.compute().items()} for m in (scores, base))
    if of_instances is not None:
        found |= {name: float(value) for name, value in of_instances.compute().items()}
    counts = torch.bincount(torch.cat(truths)).tolist() if truths else []
    of_class = {} if by_class is None else {n: v.tolist() for n, v in by_class.compute().items()}
    return SampleScores(
        Scores(len(by_item), found, other, {}),
        {
            i: Scores(count, {m: values[i] for m, values in of_class.items()}, {}, {})
            for i, count in enumerate(counts)
            if count
        },
        by_item,
        sizes,
        None if exact is None else loss_of(losses, largest, list(sizes.values())),
    )


def batches(samples: Iterable[tuple[str, Sample]]) -> Iterator[tuple[list[str], Batch]]:
    """Names and values of some samples at a time, as they come: of one shape, and not many pixels."""
    for _, group in groupby(_apart(samples), lambda each: each[0]):
        names, some = zip(*(named for _, named in group), strict=True)
        yield list(names), {key: torch.stack([sample[key] for sample in some]) for key in some[0]}


def _apart(samples: Iterable[tuple[str, Sample]]) -> Iterator[tuple[int, tuple[str, Sample]]]:
    """Samples with the number of the batch that each belongs to."""
    batch, count = 0, 0
    of_batch: dict[str, torch.Size] = {}
    for name, sample in samples:
        shapes = {key: value.shape for key, value in sample.items()}
        most = max(_PIXELS // max(math.prod(shape[-2:]) for shape in shapes.values()), 1)
        if shapes != of_batch or count == most:
            batch, count, of_batch = batch + 1, 0, shapes
        count += 1
        yield batch, (name, {key: _number(value) for key, value in sample.items()})


def _number(value: Tensor) -> Tensor:
    """Images of 8 bits, of which a whole data set may be held, in 0..1; all else as it is."""
    return to_unit(value) if value.dtype == torch.uint8 else value
