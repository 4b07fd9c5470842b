"""What an audit's intervals are over: samples, or spatial blocks where a few images hold many pixels each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomoe.audit.rows import blocks
from geomoe.data.sample import Batch
from geomoe.errors import GeomoeError
from geomoe.evaluation.statistics import Interval, paired_interval
from geomoe.metrics.measures import measure
from geomoe.tasks.task import Task

__all__ = ["Scored", "cell_losses", "sample_losses", "score_units", "total_loss"]

_CONTINUED = 1.25
"""How much larger an image may be made to fill a model's windows."""
_SAME = 1e-6
"""Relative difference of two scores that rounding may have made."""


@dataclass
class Scored:
    """Scores of samples or blocks, unit by unit in one order.

    Attributes:
        metric: the task's monitor.
        loss: the first loss of the task's family.
        size: how much each unit counts.
    """

    metric: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    size: list[float] = field(default_factory=list)

    def add(self, other: Scored) -> None:
        """Append what was found of more units."""
        self.metric += other.metric
        self.loss += other.loss
        self.size += other.size

    def mean(self, monitor: bool = True) -> float:
        """Of the metric, or of the loss, weighted by size."""
        return float(np.average(self.metric if monitor else self.loss, weights=self.size))

    def gain(self, base: Scored, monitor: str | None) -> Interval:
        """By how much these scores are better than those of ``base`` on the same units, with its interval.

        Args:
            base: what is compared with.
            monitor: the metric's name; None for the loss.
        """
        if monitor is None:
            better = _differences(base.loss, self.loss)
        else:
            sign = measure(monitor).gain(1, 0)
            better = _differences(self.metric, base.metric) * sign
        return paired_interval(better, sizes=np.array(self.size))


def _differences(a: list[float], b: list[float]) -> NDArray[np.float64]:
    one, other = np.array(a), np.array(b)
    rounding = np.abs(one - other) <= _SAME * np.maximum(np.abs(one), np.abs(other))
    return np.where(rounding, 0.0, one - other)


def score_units(task: Task, prediction: Tensor, batch: Batch, side: int) -> Scored:
    """Metric and loss of each sample of a batch, or of each of its ``side`` x ``side`` blocks.

    Raises:
        GeomoeError: a task that does not score samples by themselves.
    """
    found = Scored()
    for part, cut in blocks(prediction, batch, side):
        try:
            metric = task.by_item(task.answer(part), cut)[task.monitor]
        except NotImplementedError as error:
            raise GeomoeError(f"the task {task.family} has no scores of single samples") from error
        sizes, losses = task.sizes(cut), sample_losses(task, part, cut)
        for value, loss, size in zip(metric.tolist(), losses.tolist(), sizes.tolist(), strict=True):
            if size > 0:
                found.add(Scored([value], [loss], [size]))
    return found


def total_loss(task: Task, prediction: Tensor, batch: Batch) -> Tensor:
    """The first loss of the task's family, a scalar; no balance term is in it."""
    return next(iter(task.LOSSES.values()))(prediction, task.truth(batch))


def sample_losses(task: Task, prediction: Tensor, batch: Batch) -> Tensor:
    """``[B]``, the task's loss of each sample."""
    every = range(len(prediction))
    return torch.stack(
        [total_loss(task, prediction[i : i + 1], {k: v[i : i + 1] for k, v in batch.items()}) for i in every]
    )


def cell_losses(task: Task, prediction: Tensor, batch: Batch, grid: tuple[int, ...]) -> Tensor | None:
    """``[B * h * w]``, the task's loss of the pixels that lie in each cell of a grid ``(B, h, w)``.

    Cells beyond the right and lower edge, of images continued to whole windows, have that of the edge.
    None where the grid has one cell, is of no pixels of the prediction ``[B, C, H, W]``, or the loss cannot
    be taken of so few.
    """
    if len(grid) != 3 or prediction.dim() != 4 or grid[1] * grid[2] == 1:
        return None
    size, inside = tuple(prediction.shape[-2:]), grid[1:]
    cell = [math.ceil(pixels / cells) for pixels, cells in zip(size, inside, strict=True)]
    if any(c * cells > pixels * _CONTINUED for c, cells, pixels in zip(cell, inside, size, strict=True)):
        return None

    def cells(x: Tensor) -> Tensor:
        """``[B, ..., H, W]`` to ``[B * h * w, ..., H / h, W / w]``."""
        for axis in (-2, -1):
            whole = torch.arange(cell[axis] * inside[axis], device=x.device).clamp_max(size[axis] - 1)
            x = x.index_select(axis, whole)
        x = x.unflatten(-1, (inside[1], -1)).unflatten(-3, (inside[0], -1))  # [B, ..., h, H / h, w, W / w]
        return x.movedim((-4, -2), (1, 2)).flatten(0, 2)

    def one(part: Tensor, cut: Batch) -> Tensor:
        return total_loss(task, part[None], {key: value[None] for key, value in cut.items()})

    of_pixels = {k: v for k, v in batch.items() if v.dim() >= 3 and tuple(v.shape[-2:]) == size}
    try:
        found: Tensor = torch.vmap(one)(cells(prediction), {k: cells(v) for k, v in of_pixels.items()})
    except (RuntimeError, KeyError):
        return None
    return found
