"""Before an update: what two weights files say and how they route, region by region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from geomoe.data.split import Split
from geomoe.errors import GeomoeError
from geomoe.evaluation.drift import place_of
from geomoe.evaluation.samples import batches
from geomoe.evaluation.statistics import Interval, paired_interval
from geomoe.metrics.measures import measure
from geomoe.models import LoadedModel
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.tasks.families import family
from geomoe.tasks.task import Task

__all__ = ["Place", "Update", "compare_weights"]


_RATE = 0.05
"""Of updates that change nothing, the share of which any group is called worse or better, at most."""


@dataclass(frozen=True)
class Place:
    """One group of samples under both weights.

    Attributes:
        name: ``all``, or the region, month or folder.
        samples: how many.
        before, after: means of the metric by which models are compared.
        difference: after less before, paired by sample, with an interval that covers at 95 % in all groups
            together (Bonferroni); the ends are nan of a single sample.
        routing: share of the rows whose first choice is the same expert, once the experts of both are
            matched; None where the weights route unlike rows, or nothing.
        loads: the largest change of an expert's share of the rows; None likewise.
    """

    name: str
    samples: int
    before: float
    after: float
    difference: Interval
    routing: float | None
    loads: float | None


@dataclass(frozen=True)
class Update:
    """What :func:`compare_weights` found; ``metric`` is what was scored."""

    before: str
    after: str
    data: str
    metric: str
    places: tuple[Place, ...]

    @property
    def worse(self) -> tuple[Place, ...]:
        """Where the new weights are shown to be worse: their interval leaves 0 out on the bad side."""
        sign = measure(self.metric).gain(1.0, 0.0)
        return tuple(
            place
            for place in self.places
            if (place.difference.high if sign > 0 else -place.difference.low) < 0
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which knows no nan."""
        places = [
            {**asdict(place), "difference": place.difference.mean, "interval_95": place.difference.ends}
            for place in self.places
        ]
        return {**asdict(self), "places": places, "worse": [place.name for place in self.worse]}


@dataclass
class _Seen:
    """Of one sample: scores and size, and how often each pair of experts was chosen in each layer."""

    name: str
    before: float
    after: float
    size: float
    pairs: list[NDArray[np.int64]]


def compare_weights(
    before: LoadedModel,
    after: LoadedModel,
    root: Path,
    *,
    split: Split = "test",
    progress: Callable[[int, int], None] | None = None,
) -> Update:
    """Score two weights of one task on the same samples, and see whether they route alike.

    Args:
        before: weights in use.
        after: weights of the same family of tasks.
        root: the data, of which the truth is known.
        split: of them.
        progress: called with samples done and samples in all.

    Raises:
        GeomoeError: weights of two tasks, or data that they are not for.
    """
    if before.card.task != after.card.task:
        raise GeomoeError(f"{before.name} is of {before.card.task}, {after.name} of {after.card.task}")
    of = family(before.card.task)
    tasks = [of.task.of(model).eval() for model in (before, after)]
    named = of.data.named(root, split, before)
    seen: list[_Seen] = []
    for names, batch in batches(named.samples):
        (old, plans), (new, others) = (_score(task, batch) for task in tasks)
        pairs = _pairs(plans, others, len(names))
        sizes = tasks[0].sizes(batch).tolist()
        seen += [
            _Seen(name, float(old[i]), float(new[i]), size, pairs[i])
            for i, (name, size) in enumerate(zip(names, sizes, strict=True))
            if size > 0
        ]
        if progress:
            for _ in names:
                progress(len(seen), len(named.samples))
    if not seen:
        raise GeomoeError(f"no sample of {named.data} has a truth to be scored by")
    groups: dict[str, list[_Seen]] = {"all": seen}
    for one in seen:
        for group in _groups(root, one.name):
            groups.setdefault(group, []).append(one)
    matched = _matching(seen)
    level = 1 - _RATE / len(groups)
    places = [_place(name, some, matched, level) for name, some in groups.items()]
    return Update(before.name, after.name, named.data, tasks[0].monitor, tuple(places))


def _score(task: Task, batch: dict[str, Tensor]) -> tuple[Tensor, list[RoutingPlan]]:
    with torch.inference_mode():
        prediction = task.predict(batch, trace := RoutingTrace())
    return task.by_item(task.answer(prediction), batch)[task.monitor], list(trace)


def _pairs(
    before: Sequence[RoutingPlan], after: Sequence[RoutingPlan], samples: int
) -> list[list[NDArray[np.int64]]]:
    """For each sample and layer ``[E, E']``, rows by the first choice of both; nothing of unlike layers."""
    found: list[list[NDArray[np.int64]]] = [[] for _ in range(samples)]
    if [plan.grid for plan in before] != [plan.grid for plan in after]:
        return found
    for one, other in zip(before, after, strict=True):
        both = one.experts[:, 0] * other.num_experts + other.experts[:, 0]
        valid = torch.ones_like(both, dtype=torch.bool) if one.valid is None else one.valid
        for i, (rows, there) in enumerate(zip(both.chunk(samples), valid.chunk(samples), strict=True)):
            count = torch.bincount(rows[there], minlength=one.num_experts * other.num_experts)
            found[i].append(count.view(one.num_experts, other.num_experts).numpy())
    return found


def _matching(seen: Sequence[_Seen]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """By layer, experts of both that go with each other: that most rows chose together (Kuhn 1955)."""
    totals = [sum(each) for each in zip(*(one.pairs for one in seen), strict=True)]
    return [linear_sum_assignment(-total) for total in totals]


def _place(
    name: str,
    some: Sequence[_Seen],
    matched: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    level: float,
) -> Place:
    sizes = np.array([one.size for one in some])
    before, after = (np.array([getattr(one, of) for one in some]) for of in ("before", "after"))
    alike, rows, moved = 0, 0, 0.0
    for layer, (mine, theirs) in enumerate(matched):
        pairs = np.sum([one.pairs[layer] for one in some], 0)
        alike, rows = alike + int(pairs[mine, theirs].sum()), rows + int(pairs.sum())
        shares = pairs.sum(1)[mine] / max(pairs.sum(), 1), pairs.sum(0)[theirs] / max(pairs.sum(), 1)
        moved = max(moved, float(np.abs(shares[0] - shares[1]).max()))
    return Place(
        name=name,
        samples=len(some),
        before=float(np.average(before, weights=sizes)),
        after=float(np.average(after, weights=sizes)),
        difference=paired_interval(after - before, level, sizes),
        routing=alike / rows if rows else None,
        loads=moved if rows else None,
    )


def _groups(root: Path, name: str) -> tuple[str, ...]:
    """Region and month of a sample's file; where neither is known, the folder that it lies in."""
    path = root / name
    found = place_of(path) if path.is_file() else ()
    folder, _, inside = name.partition("/")
    return found or ((f"folder {folder}",) if inside else ())
