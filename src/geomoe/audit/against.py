"""What changes under other weights: routing, after experts are matched, and quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from geomoe.audit.layers import layer_names
from geomoe.audit.rows import (
    Cells,
    clustered_by,
    fewer,
    gate_shares,
    in_parts,
    multiple_of,
    scored,
    share_interval,
)
from geomoe.audit.section import Finding, Section, Table
from geomoe.audit.stability import over_chance, overlap
from geomoe.audit.subject import Subject
from geomoe.errors import GeomoeError
from geomoe.evaluation.statistics import Interval, paired_interval
from geomoe.metrics.measures import measure
from geomoe.models.weights import LoadedModel
from geomoe.moe.plan import RoutingPlan, RoutingTrace

__all__ = ["against", "match_experts"]

_SPLIT = ("split", "split_seed", "validation", "test", "block", "buffer", "left_out")
"""Of a recipe: what decides which samples a model learned from."""
_SAMPLES = 400
_ROWS = 256
"""Rows that are compared, of a batch."""


def match_experts(plans_a: Sequence[RoutingPlan], plans_b: Sequence[RoutingPlan]) -> Tensor:
    """Which expert of one layer does the work of which of another: the matching with most rows in common.

    By the Hungarian method on what experts share of the rows' gates (Kuhn 1955).

    Args:
        plans_a: of a layer, over batches.
        plans_b: of the other layer, over the same rows.

    Returns:
        ``[E_a]`` int64, for each expert of a that of b; -1 where b has fewer.

    Raises:
        ValueError: plans of other rows.
    """
    common = torch.zeros(plans_a[0].num_experts, plans_b[0].num_experts, dtype=torch.float64)
    for a, b in zip(plans_a, plans_b, strict=True):
        if a.num_rows != b.num_rows:
            raise ValueError(f"plans of {a.num_rows} and of {b.num_rows} rows cannot be matched")
        common += gate_shares(a).double().T @ gate_shares(b).double()
    return _matched(common)


def _matched(common: Tensor) -> Tensor:
    mine, theirs = linear_sum_assignment(common.numpy(), maximize=True)
    match = torch.full((len(common),), -1)
    match[torch.from_numpy(mine)] = torch.from_numpy(theirs)
    return match


def _names(one: LoadedModel, other: LoadedModel) -> tuple[str, str]:
    """What two weights are called; those of one name, with the start of their hashes."""
    if one.name != other.name:
        return one.name, other.name
    return f"{one.name} {one.hash[:8]}", f"{other.name} {other.hash[:8]}"


def _other_split(one: LoadedModel, other: LoadedModel, called: str) -> list[Finding]:
    """A warning where the recipes on the cards deal data otherwise."""
    mine, theirs = one.card.recipe, other.card.recipe
    apart = [name for name in _SPLIT if mine.get(name) != theirs.get(name)]
    if not apart:
        return []
    said = ", ".join(f"{name} {theirs.get(name)}, not {mine.get(name)}" for name in apart)
    text = (
        f"{called} was trained on another split ({said}): it may have learned from these samples, and what "
        f"is said of its quality means little."
    )
    return [Finding("warning", "other_split", text)]


def _renamed(shares: Tensor, match: Tensor, experts: int) -> Tensor:
    """``[N, E_b]`` shares by the first model's experts, ``[N, E_a]``; 0 for what has no match."""
    names = torch.zeros(len(match), experts, dtype=shares.dtype)
    known = match >= 0
    names[known.nonzero()[:, 0], match[known]] = 1
    return shares @ names.T


def against(subject: Subject, other: LoadedModel) -> Section:
    """Routing and quality of two weights files on the same samples, after their experts are matched.

    Half of the rows match experts, the other half is compared, and the other way round; else matching alone
    would make plans agree.

    Raises:
        GeomoeError: weights of another task, other bands, or with another number of layers that route.
    """
    if other.card.task != subject.model.card.task:
        raise GeomoeError(
            f"{other.name} was trained for {other.card.task}, {subject.model.name} for "
            f"{subject.model.card.task}"
        )
    if other.contract.bands != subject.model.contract.bands:
        raise GeomoeError(
            f"{other.name} takes {other.contract.bands} bands, {subject.model.name} "
            f"{subject.model.contract.bands}"
        )
    subject = fewer(subject, _SAMPLES)
    them = Subject(other, subject.samples, subject.seed)
    pairs: dict[str, _Pair] = {}
    values: list[list[Tensor]] = [[], []]
    sizes: list[Tensor] = []
    first, parts, multiple = 0, in_parts(subject), multiple_of(subject)
    for names, batch in subject.batches():
        traces = RoutingTrace(), RoutingTrace()
        for each, trace, kept in zip((subject, them), traces, values, strict=True):
            value, size = scored(each, each.answer(batch, trace), batch)
            kept.append(value)
        sizes.append(size)
        if len(traces[0]) != len(traces[1]):
            raise GeomoeError(
                f"{subject.model.name} has {len(traces[0])} layers that route, {other.name} "
                f"{len(traces[1])}; plans of the same layers are compared"
            )
        for name, a, b in zip(layer_names(subject.model.model, traces[0]), *traces, strict=True):
            cells = Cells.of(a, batch["image"], multiple)
            if cells is not None and a.num_rows == b.num_rows:
                clusters = cells.clusters(first, parts)
                pairs.setdefault(name, _Pair(a.num_experts, b.num_experts)).add(a, b, clusters)
        first += len(names)
    mine, theirs, weight = (torch.cat(v).numpy() for v in (*values, sizes))
    counted = weight > 0
    change = paired_interval((theirs - mine)[counted], sizes=weight[counted])
    found = {name: pair.result(subject.seed) for name, pair in pairs.items()}
    of = measure(subject.task.monitor)
    before, after = (float(np.average(v[counted], weights=weight[counted])) for v in (mine, theirs))
    ends = "" if np.isnan(change.low) else f" ({of.text(change.low, True)} to {of.text(change.high, True)})"
    mine_called, called = _names(subject.model, other)
    return Section(
        "against",
        "What changes under other weights?",
        f"{mine_called} beside {called}, on the same samples. Experts have no order of their "
        f"own: those of each layer are matched by the Hungarian method on the rows that they share, on one "
        f"half of the samples, and compared on the other, and the other way round. Chance is the same with "
        f"the other plan's rows dealt anew. Intervals are of 95 %, over {clustered_by(subject)}.",
        (
            Finding(
                "note",
                "other_weights",
                f"{of.title} is {of.text(before)} with {mine_called} and {of.text(after)} with "
                f"{called}: {of.text(change.mean, True)}{ends}.",
            ),
            *_other_split(subject.model, other, called),
            *_findings_against(found),
        ),
        (
            Table(
                "against",
                "Agreement of plans of two weights files after their experts are matched.",
                (
                    "layer",
                    "agreement",
                    "low",
                    "high",
                    "chance",
                    "over chance",
                    "their expert for each of ours",
                ),
                tuple(
                    (name, i.mean, i.low, i.high, c, over_chance(i.mean, c), ", ".join(map(str, match)))
                    for name, (i, c, match) in found.items()
                ),
            ),
        )
        if found
        else (),
        (),
        {
            "other": {"weights": other.name, "hash": other.hash},
            "monitor": subject.task.monitor,
            "before": before,
            "after": after,
            "change": {"mean": change.mean, "interval_95": change.ends},
            "layers": {
                name: {"agreement": i.mean, "interval_95": i.ends, "chance": c, "match": match}
                for name, (i, c, match) in found.items()
            },
        },
    )


def _findings_against(found: dict[str, tuple[Interval, float, list[int]]]) -> list[Finding]:
    if not found:
        return [Finding("note", "plans_not_comparable", "Rows of the two are of other kinds.")]
    name, (interval, chance, _) = min(
        found.items(),
        key=lambda item: (
            over_chance(*item[1][:2][::1]) if False else over_chance(item[1][0].mean, item[1][1])
        ),
    )
    return [
        Finding(
            "note",
            "plans_agree",
            f"Once experts are matched, plans agree least in {name}: {interval.mean:.0%}, {chance:.0%} by "
            f"chance.",
        )
    ]


@dataclass
class _Pair:
    """Of one layer of two models: what experts have in common in halves of the clusters, and some rows."""

    mine: int
    theirs: int
    common: Tensor = field(init=False)
    rows: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.common = torch.zeros(2, self.mine, self.theirs, dtype=torch.float64)

    def add(self, a: RoutingPlan, b: RoutingPlan, clusters: Tensor) -> None:
        """Plans of a batch, and the number of the sample or block of each row."""
        first, second = gate_shares(a), gate_shares(b)
        for half in (0, 1):
            mine = clusters % 2 == half
            self.common[half] += first[mine].double().T @ second[mine].double()
        # Which expert is whose is known at the end alone, and so rows are kept, but few.
        step = max(1, len(first) // _ROWS)
        there = (first.sum(1) > 0) & (second.sum(1) > 0)
        keep = there.nonzero()[::step, 0]
        self.rows.append((first[keep], second[keep], clusters[keep]))

    def result(self, seed: int) -> tuple[Interval, float, list[int]]:
        """Agreement, its level of chance, and which expert of theirs is each of ours."""
        a, b, clusters = (torch.cat(part) for part in zip(*self.rows, strict=True))
        matches = [_matched(self.common[1 - half]) for half in (0, 1)]
        named = torch.zeros(len(b), self.mine)
        dealt = torch.zeros(len(b), self.mine)
        again = b[torch.randperm(len(b), generator=torch.Generator().manual_seed(seed))]
        for half, match in enumerate(matches):
            of_half, other = clusters % 2 == half, clusters % 2 != half
            named[of_half] = _renamed(b[of_half], match, self.theirs)
            lucky = _matched(a[other].double().T @ again[other].double())
            dealt[of_half] = _renamed(again[of_half], lucky, self.theirs)
        alike = overlap(a, named)
        by_cluster = [float(alike[clusters == c].mean()) for c in clusters.unique()]
        interval = share_interval(by_cluster)
        return interval, float(overlap(a, dealt).mean()), _matched(self.common.sum(0)).tolist()
