"""Samples and their parts, and where the rows of plans lie on images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.audit.subject import Subject
from geomoe.data.sample import Batch, Lazy
from geomoe.moe.flops import count_flops
from geomoe.moe.plan import RoutingPlan

__all__ = [
    "Cells",
    "blocks",
    "blocks_a_side",
    "clustered_by",
    "fewer",
    "gate_shares",
    "multiple_of",
    "scored",
]

_FEW = 10
"""With fewer samples than this, intervals are over blocks of them: one cube is a whole data set."""
_BLOCKS = 36
"""Blocks that all samples together are cut into then, at least; of smaller ones neighbours are too alike."""
_OPERATIONS = 8e11


def blocks_a_side(subject: Subject) -> int:
    """Into how many blocks a side each sample is cut, as they are too few by themselves; 1 if not."""
    number = len(subject.samples.samples)
    return 1 if number >= _FEW else math.ceil(math.sqrt(_BLOCKS / number))


def multiple_of(subject: Subject) -> int:
    """Of the sides of images, as the model's tiling says; 1 of a model that sees whole samples."""
    tiling = subject.model.contract.tiling
    return 1 if tiling is None else tiling.multiple


def clustered_by(subject: Subject) -> str:
    """What intervals are over, in words."""
    side = blocks_a_side(subject)
    return "samples" if side == 1 else f"blocks of samples ({side} x {side} in each)"


def fewer(subject: Subject, most: int) -> Subject:
    """The same with at most so many samples, spread evenly over all of them."""
    number = len(subject.samples.samples)
    if number <= most:
        return subject
    places = torch.linspace(0, number - 1, most).round().long().tolist()
    return replace(
        subject, samples=replace(subject.samples, samples=Lazy(subject.samples.samples.__getitem__, places))
    )


def affordable(subject: Subject, passes: int, least: int = 16) -> Subject:
    """The same with fewer samples where so many ``passes`` over all of them were long to wait for.

    By operations, so that the same samples are taken on every machine: a minute on two cores or less.
    """
    _, batch = next(fewer(subject, 1).batches())
    each = count_flops(lambda: subject.answer(batch))
    return fewer(subject, max(least, int(_OPERATIONS / max(each, 1) / passes)))


def gate_shares(plan: RoutingPlan) -> Tensor:
    """``[N, E]`` how far each row is each expert's: its gates over their sum; 0 where it has no expert."""
    gates = plan.gates.detach().abs().float()
    given = gates / gates.sum(1, keepdim=True).clamp_min(1e-12)
    return given if plan.valid is None else given * plan.valid[:, None]


def scored(subject: Subject, answer: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The task's ``monitor`` of each sample of a batch, or of each of its parts: values and sizes, ``[U]``.

    Parts are in the order of :meth:`Cells.clusters`, those of the first sample first.
    Those without a truth are left in, with size 0 and a value that means nothing.
    """
    task, cuts = subject.task, list(blocks(answer, batch, blocks_a_side(subject)))
    values = [task.by_item(a, b)[task.monitor].double() for a, b in cuts]
    sizes = [task.sizes(b).double() for _, b in cuts]
    return torch.stack(values, 1).flatten(), torch.stack(sizes, 1).flatten()


def blocks(answer: Tensor, batch: Batch, side: int) -> Iterator[tuple[Tensor, Batch]]:
    """``side`` x ``side`` blocks of a batch and of what is answered, row by row; all of it for whole samples.

    Answers for samples as a whole are not cut.
    """
    if side == 1 or answer.ndim < 4:
        yield answer, batch
        return
    height, width = batch["image"].shape[-2:]
    down, across = (list(pairwise(n * i // side for i in range(side + 1))) for n in (height, width))
    for box in ((*y, *x) for y in down for x in across):
        cut = {key: _cut(value, box, height, width) for key, value in batch.items()}
        yield _cut(answer, box, height, width), cut


def _cut(value: Tensor, box: tuple[int, int, int, int], height: int, width: int) -> Tensor:
    """The box of an image of ``height`` x ``width``, of what is as large or larger by a whole number."""
    if value.ndim < 3 or value.shape[-2] % height or value.shape[-1] % width:
        return value
    times = value.shape[-2] // height
    top, bottom, left, right = (times * edge for edge in box)
    return value[..., top:bottom, left:right]


@dataclass(frozen=True)
class Cells:
    """The squares of images that the rows of a plan decide on; of a plan for whole images one each.

    Attributes:
        plan: of a pass over a batch of images; one of a model that pads may have more rows than there is
            image.
        side: of a square in pixels.
        height, width: of the images.
    """

    plan: RoutingPlan
    side: int
    height: int
    width: int

    @classmethod
    def of(cls, plan: RoutingPlan, image: Tensor, multiple: int = 1) -> Cells | None:
        """Of a plan for ``image`` ``[B, C, H, W]``; None where its rows are no squares of images.

        Args:
            plan: of a pass.
            image: of that pass.
            multiple: as of :class:`geomoe.models.contract.Tiling`, whose divisors sides are; 1 of a model
                without.
        """
        height, width = image.shape[-2:]
        if plan.grid[0] != len(image) or math.prod(plan.grid) != plan.num_rows:
            return None
        if len(plan.grid) == 1:
            return cls(plan, max(height, width), height, width)
        if len(plan.grid) != 3:
            return None
        rows, columns = plan.grid[1:]
        sides = [side for side in range(1, multiple + 1) if multiple % side == 0]
        sides.append(max(-(-height // rows), -(-width // columns)))
        fitting = (side for side in sides if rows * side >= height and columns * side >= width)
        return cls(plan, next(fitting), height, width)

    @property
    def grid(self) -> tuple[int, int]:
        """Squares down and across."""
        return (self.plan.grid[1], self.plan.grid[2]) if len(self.plan.grid) == 3 else (1, 1)

    def means(self, values: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means of pixels over the square of each row.

        Args:
            values: ``[B, F, H, W]``.
            known: ``[B, H, W]`` bool, the pixels that count; all if not given.

        Returns:
            ``[N, F]``, and ``[N]`` the share of the square that counts, 0 where a row is padding.
        """
        weight = values.new_ones(len(values), 1, self.height, self.width)
        weight = weight if known is None else known[:, None].to(values.dtype)
        rows, columns = self.grid
        more = (0, columns * self.side - self.width, 0, rows * self.side - self.height)
        total = F.avg_pool2d(F.pad(values * weight, more), self.side)  # [B, F, h, w]
        share = F.avg_pool2d(F.pad(weight, more), self.side)
        means = (total / share.clamp_min(1e-12)).permute(0, 2, 3, 1).reshape(-1, values.shape[1])
        return means, share.flatten()

    def on_image(self, values: Tensor) -> Tensor:
        """Values of rows, ``[N, ...]``, on the pixels of the images, ``[B, ..., H, W]``."""
        cells = values.view(self.plan.grid[0], *self.grid, *values.shape[1:]).movedim((1, 2), (-2, -1))
        whole = cells.repeat_interleave(self.side, -2).repeat_interleave(self.side, -1)
        return whole[..., : self.height, : self.width]

    def clusters(self, first: int, side: int) -> Tensor:
        """``[N]`` number of what each row is of: its sample, counted from ``first``, or its block of it.

        Blocks are those of :func:`blocks`, ``side`` of them each way.
        """
        number, (rows, columns) = self.plan.grid[0], self.grid
        sample = torch.arange(first, first + number).repeat_interleave(rows * columns)
        y, x = (
            (torch.arange(n) * self.side * side // size).clamp_max(side - 1)
            for n, size in ((rows, self.height), (columns, self.width))
        )
        return sample * side**2 + (y[:, None] * side + x).flatten().repeat(number)
