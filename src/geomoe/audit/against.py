"""What changes under other weights: routing, after experts are matched, and quality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from geomoe.audit.features import FEATURES, image_planes
from geomoe.audit.layers import layer_names
from geomoe.audit.roles import Profiles, Roles, compare_roles
from geomoe.audit.rows import (
    Cells,
    blocks_a_side,
    clustered_by,
    fewer,
    gate_shares,
    multiple_of,
    scored,
)
from geomoe.audit.section import Finding, Section, Table
from geomoe.audit.stability import over_chance, overlap
from geomoe.audit.subject import Subject
from geomoe.data.sample import Batch
from geomoe.errors import GeomoeError
from geomoe.evaluation.statistics import Interval, bounded_interval, paired_interval
from geomoe.metrics.measures import measure
from geomoe.models.weights import LoadedModel
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.printable import counted

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


def against(subject: Subject, others: Sequence[LoadedModel]) -> Section:
    """Routing and quality of several weights files on the same samples, after their experts are matched.

    Half of the rows match experts, the other half is compared, and the other way round; else matching alone
    would make plans agree. What experts are for is compared of those that are matched on all rows.

    Raises:
        GeomoeError: weights of another task, other bands, or with another number of layers that route.
    """
    for other in others:
        _expect_comparable(subject.model, other)
    subject = fewer(subject, _SAMPLES)
    classes = [name for output in subject.model.contract.outputs.values() for name in output.classes]
    mine = _Run(subject)
    theirs = [_Run(Subject(other, subject.samples, subject.seed)) for other in others]
    sizes: list[Tensor] = []
    first, side, multiple = 0, blocks_a_side(subject), multiple_of(subject)
    for names, batch in subject.batches():
        trace, size = mine.answer(batch)
        sizes.append(size)
        planes = image_planes(batch, len(classes))
        for run in theirs:
            beside, _ = run.answer(batch)
            if len(trace) != len(beside):
                raise GeomoeError(
                    f"{subject.model.name} has {len(trace)} layers that route, {run.subject.model.name} "
                    f"{len(beside)}; plans of the same layers are compared"
                )
            for name, a, b in zip(
                layer_names(subject.model.model, trace), trace.plans, beside.plans, strict=True
            ):
                cells = [Cells.of(plan, batch["image"], multiple) for plan in (a, b)]
                if cells[0] is not None and cells[1] is not None and a.num_rows == b.num_rows:
                    if run is theirs[0]:
                        mine.profiles.setdefault(name, Profiles()).add(cells[0], planes)
                    run.profiles.setdefault(name, Profiles()).add(cells[1], planes)
                    pair = run.pairs.setdefault(name, _Pair(a.num_experts, b.num_experts))
                    pair.add(a, b, cells[0].clusters(first, side))
        first += len(names)
    weight = torch.cat(sizes).numpy()
    found = [_compared(subject, mine, run, weight) for run in theirs]
    roles = _roles(mine, theirs, found, [*FEATURES, *classes])
    return _section(subject, found, roles)


def _expect_comparable(one: LoadedModel, other: LoadedModel) -> None:
    if other.card.task != one.card.task:
        raise GeomoeError(f"{other.name} was trained for {other.card.task}, {one.name} for {one.card.task}")
    if other.contract.bands != one.contract.bands:
        raise GeomoeError(f"{other.name} takes {other.contract.bands} bands, {one.name} {one.contract.bands}")


@dataclass
class _Run:
    """One model's scores, and what its experts are for; of another model, what it has in common with ours."""

    subject: Subject
    values: list[Tensor] = field(default_factory=list)
    profiles: dict[str, Profiles] = field(default_factory=dict)
    pairs: dict[str, _Pair] = field(default_factory=dict)

    def answer(self, batch: Batch) -> tuple[RoutingTrace, Tensor]:
        """Score a batch: its plans, and how much each sample or part counts."""
        trace = RoutingTrace()
        value, size = scored(self.subject, self.subject.answer(batch, trace), batch)
        self.values.append(value)
        return trace, size


@dataclass(frozen=True)
class _Found:
    """What another model is beside ours: quality, and agreement by layer, its chance, and the matching."""

    model: LoadedModel
    called: tuple[str, str]
    before: float
    after: float
    change: Interval
    layers: dict[str, tuple[Interval, float, list[int]]]


def _compared(subject: Subject, mine: _Run, other: _Run, weight: NDArray[np.float64]) -> _Found:
    known = weight > 0
    a, b = (torch.cat(run.values).numpy()[known] for run in (mine, other))
    before, after = (float(np.average(v, weights=weight[known])) for v in (a, b))
    return _Found(
        other.subject.model,
        _names(subject.model, other.subject.model),
        before,
        after,
        paired_interval(b - a, sizes=weight[known]),
        {name: pair.result(subject.seed) for name, pair in other.pairs.items()},
    )


def _roles(
    mine: _Run, theirs: Sequence[_Run], found: Sequence[_Found], names: Sequence[str]
) -> dict[str, Roles]:
    """By layer, of those that can be compared under all of the weights."""
    layers = [name for name in mine.profiles if all(name in of.layers for of in found)]
    return {
        name: compare_roles(
            mine.profiles[name].differences,
            [
                (run.profiles[name].differences, of.layers[name][2])
                for run, of in zip(theirs, found, strict=True)
            ],
            names,
        )
        for name in layers
    }


def _section(subject: Subject, found: Sequence[_Found], roles: dict[str, Roles]) -> Section:
    called = [of.called[1] for of in found]
    agreement = tuple(
        (of.called[1], name, i.mean, i.low, i.high, c, over_chance(i.mean, c), ", ".join(map(str, match)))
        for of in found
        for name, (i, c, match) in of.layers.items()
    )
    columns = ("weights", "layer", "agreement", "low", "high", "chance", "over chance",
               "their expert for each of ours")  # fmt: skip
    tables = []
    if agreement:
        caption = "Agreement of plans after experts are matched."
        tables.append(Table("against", caption, columns, agreement))
    if roles:
        tables.append(
            Table(
                "against_roles",
                "What each expert is for, and the experts of other weights that are matched with it; how "
                "many of these have the same role, and how far the whole profiles correlate.",
                ("layer", "expert", "role", *called, "the same", "correlation"),
                tuple(row for name, of in roles.items() for row in of.rows(name)),
            )
        )
    return Section(
        "against",
        "What changes under other weights?",
        f"{found[0].called[0]} beside {', '.join(called)}, on the same samples. Experts have no order of "
        "their own: those of each layer are matched by the Hungarian method on the rows that they share, on "
        "one half of the samples, and compared on the other, and the other way round. Chance is the same "
        f"with the other plan's rows dealt anew. Intervals are of 95 %, over {clustered_by(subject)}. An "
        "expert's role is the class that its rows are of more often than the others', most clearly, by "
        "standardised differences as above; where there are no classes, the feature in which they differ "
        "most. Experts with less than a hundredth of an even share have none.",
        (
            *_findings_of_quality(subject, found),
            *(_findings_of_plans(found)),
            *(_findings_of_roles(roles, len(found))),
        ),
        tuple(tables),
        (),
        {
            "monitor": subject.task.monitor,
            "before": found[0].before,
            "others": [
                {
                    "weights": of.model.name,
                    "hash": of.model.hash,
                    "after": of.after,
                    "change": {"mean": of.change.mean, "interval_95": of.change.ends},
                    "layers": {
                        name: {"agreement": i.mean, "interval_95": i.ends, "chance": c, "match": match}
                        for name, (i, c, match) in of.layers.items()
                    },
                }
                for of in found
            ],
            "roles": {
                name: {
                    "mine": [None if role is None else role[0] for role in of.mine],
                    "alike": of.alike, "share": of.share, "chance": of.chance, "correlation": of.correlation,
                }
                for name, of in roles.items()
            },
        },
    )  # fmt: skip


def _findings_of_quality(subject: Subject, found: Sequence[_Found]) -> Iterator[Finding]:
    title = measure(subject.task.monitor)
    for of in found:
        change = of.change
        ends = (
            "" if change.ends is None else " ({} to {})".format(*(title.text(e, True) for e in change.ends))
        )
        yield Finding(
            "note",
            "other_weights",
            f"{title.title} is {title.text(of.before)} with {of.called[0]} and {title.text(of.after)} with "
            f"{of.called[1]}: {title.text(change.mean, True)}{ends}.",
        )
        yield from _other_split(subject.model, of.model, of.called[1])


def _findings_of_plans(found: Sequence[_Found]) -> Iterator[Finding]:
    every = [(of, name, i.mean, c) for of in found for name, (i, c, _) in of.layers.items()]
    if not every:
        yield Finding("note", "plans_not_comparable", "Rows of the two are of other kinds.")
        return
    of, name, agreement, chance = min(every, key=lambda one: over_chance(one[2], one[3]))
    with_ = f", with {of.called[1]}" if len(found) > 1 else ""
    yield Finding(
        "note",
        "plans_agree",
        f"Once experts are matched, plans agree least in {name}{with_}: {agreement:.0%}, {chance:.0%} by "
        "chance.",
    )


def _findings_of_roles(roles: dict[str, Roles], others: int) -> Iterator[Finding]:
    for name, of in roles.items():
        if of.share is not None:
            used = sum(n is not None for n in of.alike)
            whole = sum(n == others for n in of.alike)
            yield Finding(
                "note",
                "roles_agree",
                f"In {name} {counted(whole, 'expert')} of {used} {'has' if whole == 1 else 'have'} the same "
                f"role under {'all of the weights' if others > 1 else 'both weights'}; in {of.share:.0%} of "
                f"all cases roles agree, {of.chance:.0%} by chance.",
            )


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
        interval = bounded_interval(np.asarray(by_cluster))
        return interval, float(overlap(a, dealt).mean()), _matched(self.common.sum(0)).tolist()
