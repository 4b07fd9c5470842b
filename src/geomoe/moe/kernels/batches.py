"""Batches: rows of several experts made equally long, so that one call multiplies them all.

Rows come sorted by expert. An expert's product alone is too small to keep several cores busy; a batch of
products is not, and is worth a little padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["Batch", "StackGradient", "batches", "bias_gradient", "spans"]

_CACHE = 1 << 19
"""Elements that a core works on at a time (2 MB of float32)."""

_CORES = 16
"""Cores, at most, that a batch is made large for: it takes memory for each."""

_CALL = 12e6
"""Operations that a core does in the time that one more batch costs: padding may cost as much."""


def spans(counts: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Expert, first and last row for every expert that has rows."""
    found, start = [], 0
    for expert, count in enumerate(counts):
        if count:
            found.append((expert, start, start + count))
        start += count
    return found


@dataclass(frozen=True)
class Batch:
    """One run of rows from each of some adjacent experts.

    Attributes:
        first: the first of the experts.
        starts: where each run begins among the sorted rows.
        lengths: rows in each run; places up to the longest are padding.
        begun: whether earlier batches have rows of the same expert.
    """

    first: int
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    begun: bool = False

    @property
    def experts(self) -> slice:
        return slice(self.first, self.first + len(self.starts))

    @property
    def shape(self) -> tuple[int, int]:
        """Runs, and places in each."""
        return len(self.lengths), max(self.lengths)

    @property
    def padded(self) -> bool:
        return min(self.lengths) < max(self.lengths)

    def positions(self, device: torch.device) -> Tensor:
        """Int64 ``[runs, places]``, the row at each place; padding repeats a run's last row."""
        place = torch.arange(self.shape[1], device=device)
        lengths = torch.tensor(self.lengths, device=device)
        starts = torch.tensor(self.starts, device=device)
        return torch.minimum(place, lengths[:, None] - 1) + starts[:, None]

    def take(self, rows: Tensor) -> Tensor:
        """``[runs, places, ...]`` from sorted ``rows``, in padding one of them."""
        place = self.place(rows)
        return rows[self.positions(rows.device)] if place is None else place

    def place(self, rows: Tensor) -> Tensor | None:
        """``[runs, places, ...]`` inside sorted ``rows``; None where there is padding between."""
        if self.padded:
            return None
        start, (runs, places) = self.starts[0], self.shape
        return rows[start : start + runs * places].view(runs, places, *rows.shape[1:])

    def pad(self, rows: Tensor) -> Tensor:
        """``[runs, places, ...]`` from sorted ``rows``, 0 in padding."""
        place = self.place(rows)
        if place is not None:
            return place
        out = rows.new_zeros(*self.shape, *rows.shape[1:])
        for run, start, length in zip(out, self.starts, self.lengths, strict=True):
            run[:length] = rows[start : start + length]
        return out

    def write(self, results: Tensor, rows: Tensor) -> None:
        """Write ``[runs, places, ...]`` to where its rows stand in ``rows``."""
        place = self.place(rows)
        if place is None:
            self.unpad(results, rows)
        else:
            place.copy_(results)

    def unpad(self, results: Tensor, rows: Tensor) -> None:
        """Write ``[runs, places, ...]`` to where its rows stand in ``rows``, if it is not there already."""
        if self.padded:
            for run, start, length in zip(results, self.starts, self.lengths, strict=True):
                rows[start : start + length] = run[:length]

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
        """``x @ weight[e] + bias[e]`` of ``[runs, places, I]``, from stacks ``[E, I, O]`` and ``[E, O]``."""
        if bias is None:
            return torch.bmm(x, weight[self.experts], out=out)
        return torch.baddbmm(bias[self.experts, None], x, weight[self.experts], out=out)


def batches(counts: tuple[int, ...], width: int, flops: int) -> list[Batch]:
    """Batches that together hold every row once.

    Args:
        counts: rows of each expert.
        width: elements of a row where it is widest, for what fits in the cache.
        flops: operations on a row.
    """
    threads = min(torch.get_num_threads(), _CORES)
    most, spare = max(threads * _CACHE // width, 1), threads * _CALL / flops
    found: list[Batch] = []
    open_: list[tuple[int, int]] = []  # start and length of the runs of the batch that is being filled
    first = 0
    for expert, start, end in spans(counts):
        count = end - start
        wider = [*open_, (start, count)]
        # An expert without rows stays out of every product: 0 times NaN is NaN.
        apart = expert > first + len(open_)
        if open_ and (apart or _places(wider) > most or _padding(wider) - _padding(open_) > spare):
            found.append(_batch(first, open_))
            open_ = []
        if count > most:
            pieces = -(-count // most)
            ends = [start + count * i // pieces for i in range(pieces + 1)]
            found += [Batch(expert, (a,), (b - a,), a > start) for a, b in pairwise(ends)]
        elif open_:
            open_ = wider
        else:
            first, open_ = expert, [(start, count)]
    return [*found, _batch(first, open_)] if open_ else found


def _places(runs: list[tuple[int, int]]) -> int:
    return len(runs) * max(length for _, length in runs)


def _padding(runs: list[tuple[int, int]]) -> int:
    return _places(runs) - sum(length for _, length in runs)


def _batch(first: int, runs: list[tuple[int, int]]) -> Batch:
    return Batch(first, tuple(start for start, _ in runs), tuple(length for _, length in runs))


def bias_gradient(like: Tensor) -> StackGradient:
    """Of a stack of biases ``[E, O]``, whose terms are sums over many rows: added in single precision."""
    half = like.dtype in (torch.float16, torch.bfloat16)
    return StackGradient(like, torch.float32 if half else None)


class StackGradient:
    """The gradient of a stack, batch by batch. First terms are written and not added: nothing is cleared.

    Args:
        like: the stack.
        dtype: in which terms are added.
    """

    def __init__(self, like: Tensor, dtype: torch.dtype | None = None) -> None:
        self.kind = like.dtype
        self.total = torch.empty(like.shape, dtype=dtype or like.dtype, device=like.device)
        self.left = set(range(len(like)))

    def add_product(self, batch: Batch, a: Tensor, b: Tensor) -> None:
        """Add ``a @ b`` to the gradients of the batch's experts."""
        place = self._place(batch)
        if batch.begun:
            place.baddbmm_(a, b)
        else:
            torch.bmm(a, b, out=place)

    def add_rows(self, batch: Batch, rows: Tensor) -> None:
        """Add the sums of ``[runs, places, O]`` over places to the gradients of the batch's experts."""
        place, terms = self._place(batch), rows.sum(1, dtype=self.total.dtype)
        if batch.begun:
            place += terms
        else:
            place.copy_(terms)

    def _place(self, batch: Batch) -> Tensor:
        self.left -= set(range(batch.experts.start, batch.experts.stop))
        return self.total[batch.experts]

    def done(self) -> Tensor:
        """The gradient; 0 for experts without rows."""
        for expert in self.left:
            self.total[expert] = 0
        return self.total.to(self.kind)
