"""Scores that are given, not learned: values computed elsewhere, cells of a partition, a table by id."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from geomoe.moe.routing.score import Score, only

__all__ = ["AllowedExperts", "DomainScore", "GivenScore", "PartitionScore", "TableScore"]


class GivenScore(Score):
    """Rows ``[N, E]`` are the logits: log-likelihoods, negative losses, whatever a program gives each expert.

    With a softmax gate the weights are the posterior of each expert given what its density says of the row,
    ``pi_e p_e(y) / sum`` (the E step of Jordan and Jacobs 1994).

    Args:
        num_experts: E.
        prior: learn the logarithm of pi, which starts even; else pi is even.
    """

    def __init__(self, num_experts: int, prior: bool = False) -> None:
        super().__init__((num_experts,))
        self.log_prior = nn.Parameter(torch.zeros(num_experts)) if prior else None

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        return rows if self.log_prior is None else rows + self.log_prior.log_softmax(0)


class PartitionScore(Score):
    """Cells that overlap at their borders, one expert each (Loyola 2004): a fixed gate on geometry.

    Rows ``[N, D]`` are coordinates on D axes. On each axis the weight of a cell is 1 inside and falls in a
    straight line over an overlap, where it and its neighbour's sum to 1; a gate is the product over axes. It
    is continuous, sums to 1 everywhere, and is one-hot away from overlaps. Beyond the ends the outer cells go
    on.

    Args:
        borders: for each axis the values between its cells, ascending; c - 1 for c cells.
        overlap: for each axis the width of every overlap; 0 cuts hard, as a discrete axis does.

    Experts are numbered with the last axis fastest.

    Raises:
        ValueError: borders that do not ascend, or lie closer than the overlap.
    """

    def __init__(self, borders: Sequence[Sequence[float]], overlap: Sequence[float]) -> None:
        super().__init__((prod(len(axis) + 1 for axis in borders),))
        if len(borders) != len(overlap):
            raise ValueError(f"{len(borders)} axes have borders, {len(overlap)} an overlap")
        for axis, width in zip(borders, overlap, strict=True):
            if width < 0 or any(b - a < width or b <= a for a, b in pairwise(axis)):
                raise ValueError(f"borders {list(axis)}: expected to ascend by the overlap {width} or more")
        self.borders, self.overlap = [list(axis) for axis in borders], list(overlap)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        if rows.shape[1] != len(self.borders):
            raise ValueError(f"rows {list(rows.shape)}: expected [N, {len(self.borders)}] coordinates")
        one, none = rows.new_ones(rows.shape[0], 1), rows.new_zeros(rows.shape[0], 1)
        gate = one
        for axis, (borders, width) in enumerate(zip(self.borders, self.overlap, strict=True)):
            distance = rows[:, axis : axis + 1] - rows.new_tensor(borders)  # [N, c - 1]
            above = (distance / width + 0.5).clamp(0, 1) if width else (distance >= 0).to(rows.dtype)
            above = torch.cat([one, above, none], 1)  # share at or above each cell's lower border
            cells = above[:, :-1] - above[:, 1:]
            gate = (gate[:, :, None] * cells[:, None]).flatten(1)
        return gate.log()


class TableScore(Score):
    """A fixed expert for every id: rows ``[N]`` are ids (modality, granularity, sensor).

    Args:
        experts: expert of each id, ``0 .. len(experts) - 1``.
        num_experts: E; the largest named plus one by default.
    """

    takes_ids = True
    table: Tensor

    def __init__(self, experts: Sequence[int], num_experts: int | None = None) -> None:
        super().__init__((max(experts) + 1 if num_experts is None else num_experts,))
        if not 0 <= min(experts) <= max(experts) < self.num_experts:
            raise ValueError(f"experts={list(experts)}: expected 0 to {self.num_experts - 1}")
        self.register_buffer("table", torch.tensor(experts), persistent=False)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        if rows.is_floating_point() or rows.dim() != 1:
            raise ValueError(f"a table takes whole ids [N], not {rows.dtype} {list(rows.shape)}")
        check_ids(rows, len(self.table), "ids", "an id")
        return only(self.table[rows], self.num_experts)


class DomainScore(Score):
    """A gate for each domain: a row's logits are those of the gate of its domain (GRAM).

    Args:
        gates: a score for each domain, all of the same experts.

    The context ``[N, 1]`` is each row's domain. No gradient reaches a gate from rows of another domain.

    Raises:
        ValueError: scores of other experts than each other's.
    """

    takes_context = True

    def __init__(self, gates: Sequence[Score]) -> None:
        super().__init__(gates[0].group_sizes)
        if any(gate.group_sizes != self.group_sizes for gate in gates):
            raise ValueError("gates: expected scores of the same experts")
        self.gates = nn.ModuleList(gates)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        domain = ids(context, len(self.gates), "domain")
        if torch.compiler.is_exporting():  # a graph must not hold how many rows each gate has
            every = torch.stack([gate(rows) for gate in self.gates], 1)  # [N, D, E]
            return every.gather(1, domain.view(-1, 1, 1).expand(-1, 1, every.shape[2])).squeeze(1)
        order = domain.argsort(stable=True)
        parts = rows[order].split(torch.bincount(domain, minlength=len(self.gates)).tolist())
        logits = torch.cat([gate(part) for gate, part in zip(self.gates, parts, strict=True)])
        return torch.empty_like(logits).index_copy(0, order, logits)


class AllowedExperts(Score):
    """Another score whose experts are out of reach but for those that a row's sensor may use.

    Args:
        content: the score.
        allowed: for each sensor the experts that it may use.

    The context is each row's sensor, ``[N, 1]``, before what ``content`` makes use of, if it does.
    """

    takes_context = True
    mask: Tensor

    def __init__(self, content: Score, allowed: Sequence[Sequence[int]]) -> None:
        super().__init__(content.group_sizes)
        mask = torch.zeros(len(allowed), self.num_experts, dtype=torch.bool)
        for sensor, experts in enumerate(allowed):
            if not experts or not 0 <= min(experts) <= max(experts) < self.num_experts:
                raise ValueError(
                    f"allowed: sensor {sensor} may use {list(experts)}; expected one or more of 0 to "
                    f"{self.num_experts - 1}"
                )
            mask[sensor, list(experts)] = True
        self.content, self.takes_ids = content, content.takes_ids
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        sensor, rest = context, None
        if context is not None and self.content.takes_context:
            sensor, rest = context[:, :1], context[:, 1:]
        allowed = self.mask[ids(sensor, len(self.mask), "sensor")]
        logits: Tensor = self.content(rows) if rest is None else self.content(rows, rest)
        return logits.masked_fill(~allowed, float("-inf"))


def ids(context: Tensor | None, number: int, name: str) -> Tensor:
    """``[N]`` int64 from a context ``[N, 1]`` of whole numbers below ``number``."""
    if context is None or context.shape[1] != 1:
        raise ValueError(f"context: expected each row's {name}, [N, 1]")
    found = context[:, 0].long()
    check_ids(found, number, "context", f"a {name}")
    return found


def check_ids(found: Tensor, number: int, where: str, what: str) -> None:
    """Raise ValueError for whole numbers ``[N]`` of which one is not of 0 to ``number - 1``."""
    if torch.compiler.is_exporting():  # a graph asks no questions
        return
    wrong = found[(found < 0) | (found >= number)]
    if len(wrong):
        raise ValueError(f"{where}: expected {what} of 0 to {number - 1}, found {int(wrong[0])}")
