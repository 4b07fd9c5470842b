"""Results and costs as one table: scores with intervals, paired differences to the flagship or another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.evaluation.benchmark.config import Arm, Benchmark
from geomoe.evaluation.benchmark.cost import Cost
from geomoe.evaluation.benchmark.groups import Group, apart, make_groups, of, paired, scores, sizes
from geomoe.evaluation.benchmark.result import Result
from geomoe.evaluation.benchmark.twins import differences, twin_kind, twin_name
from geomoe.evaluation.statistics import (
    FEWEST_BLOCKS,
    Interval,
    Ranking,
    agreement,
    holm,
    mean_interval,
    rank_arms,
    wilcoxon,
)
from geomoe.metrics.measures import measure, show

__all__ = ["Row", "Table", "make_table"]


@dataclass(frozen=True)
class Row:
    """One arm.

    Attributes:
        arm, label, model: as in :class:`~geomoe.evaluation.benchmark.config.Arm`.
        seeds: that are finished.
        cost: of a tile; None of an arm that is no network.
        training_seconds: mean over seeds.
        scores: means over seeds and images, by metric.
        difference: the score by which arms are compared less that of ``beside``, paired by seed and image;
            None for the flagship, and where no seed is finished for both.
        p: of the difference, by Wilcoxon over images, corrected by Holm over the arms.
        paper: the scores that a paper prints, by metric.
        beside: name of the arm that it is tested against; of the flagship its own.
        twin: what it is to that arm, such as ``gated dense twin``; empty for no twin.
        at: its place in a sweep.
        kind: of a twin, as of :func:`geomoe.evaluation.benchmark.twins.twin_kind`; else empty.
    """

    arm: str
    label: str
    model: str
    seeds: tuple[int, ...]
    cost: Cost | None
    training_seconds: float
    scores: dict[str, Interval]
    difference: Interval | None
    p: float | None
    paper: dict[str, float]
    beside: str
    twin: str = ""
    at: dict[str, float] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Rows by the metric ``ranks``, best first, with what is needed to read them; by source too, if any."""

    title: str
    flagship: str
    header: dict[str, str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    ranks: str
    groups: tuple[Group, ...] = ()
    ranking: Ranking | None = None
    """Of the rows, in their order; None where there are too few arms or blocks."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def make_table(
    benchmark: Benchmark,
    results: Mapping[str, Sequence[Result]],
    costs: Mapping[str, Cost],
    hardware: str,
    date: str | None = None,
) -> Table:
    """The table of all arms that have a result.

    Args:
        benchmark: what was compared.
        results: of each arm, one for every finished seed; at least one arm has one.
        costs: of each network with a result.
        hardware: that the costs were measured on.
        date: of the table; today's if not given.
    """
    arms = [arm for arm in benchmark.arms if results.get(arm.name)]
    if benchmark.ranks not in (there := results[arms[0].name][0].baseline):
        raise GeomoeError(f"rank_by={benchmark.ranks!r}: {benchmark.task} has {', '.join(there)} here")
    ranks, rivals = benchmark.ranks, {arm.name: benchmark.rival(arm).name for arm in arms}
    differences = {
        name: difference
        for name, rival in rivals.items()
        if name != rival
        and (difference := paired(results[name], results.get(rival, ()), of(ranks))) is not None
    }
    # Of one sample, such as an image whose pixels have classes, no test knows anything.
    raw = {name: wilcoxon(found.mean(0)) for name, found in differences.items() if found.shape[1] > 1}
    p = dict(zip(raw, holm(list(raw.values())), strict=True))
    rows = [
        _row(
            arm,
            rivals[arm.name],
            results[arm.name],
            costs.get(arm.name),
            differences.get(arm.name),
            p.get(arm.name),
            ranks,
        )
        for arm in arms
    ]
    refused = {arm.name: found for arm in arms if (found := _refused(benchmark, arm))}
    twins = {arm.name: twin_name(benchmark, arm) for arm in arms if arm.name not in refused}
    kinds = {name: twin_kind(benchmark, benchmark.arm(name)) for name in twins}
    rows = [replace(row, twin=twins.get(row.arm, "no twin"), kind=kinds.get(row.arm, "")) for row in rows]
    rows.sort(key=lambda row: _better(ranks, row.scores[ranks].mean))
    every = [result for arm in arms for result in results[arm.name]]
    header = {
        **benchmark.said,
        "test": _all(result.scored for result in every),
        "seeds": ", ".join(map(str, benchmark.seeds)),
        "steps": _all(str(result.steps) for result in every),
        "trained on": _all(result.hardware for result in every),
        "cost measured on": f"{hardware}, torch {torch.__version__}",
        "date": date or datetime.now(UTC).date().isoformat(),
        "commit": _all(result.commit or "unknown" for result in every),
    }
    notes = [*_notes(benchmark, arms, rows, every, len(p)), *_orders(rows, results, ranks)]
    if any(row.twin for row in rows):
        notes.append(
            f"+/-: what is left of a mismatch to {_rivals(benchmark)}, of whole networks: parameters, those "
            "that take part in a pixel's result, and operations of the tile."
        )
    notes += [f"{benchmark.arm(name).label} is no twin of {rivals[name]}: {'; '.join(found)}."
              for name, found in refused.items()]  # fmt: skip
    groups = make_groups(benchmark, {row.arm: results[row.arm] for row in rows})
    ranking, said = _ranking(rows, results, ranks)
    notes += said
    return Table(
        benchmark.title, benchmark.flagship, header, tuple(rows), tuple(notes), ranks, groups, ranking
    )


def _row(
    arm: Arm,
    beside: str,
    results: Sequence[Result],
    cost: Cost | None,
    paired: NDArray[np.float64] | None,
    p: float | None,
    ranks: str,
) -> Row:
    seeds = tuple(sorted(result.seed for result in results))
    return Row(
        arm=arm.name,
        label=arm.label,
        model=arm.model,
        seeds=seeds,
        cost=cost,
        training_seconds=fmean(result.seconds for result in results),
        scores={
            name: mean_interval(scores(results, seeds, of(name)), sizes=sizes(results, name))
            for name in {**results[0].baseline, **results[0].overall}  # of instances there is no baseline
            if all(name in result.baseline or name in result.overall for result in results)
        },
        difference=None if paired is None else mean_interval(paired, sizes=sizes(results, ranks)),
        p=p,
        paper=arm.paper,
        beside=beside,
        at=arm.at,
    )


def _refused(benchmark: Benchmark, arm: Arm) -> list[str]:
    """Why an arm that claims to be a twin is none."""
    return differences(benchmark, arm) if twin_name(benchmark, arm) else []


def _rivals(benchmark: Benchmark) -> str:
    others = any(arm.beside for arm in benchmark.arms)
    return "the arm that the row names" if others else benchmark.flagship


def _better(metric: str, value: float) -> float:
    """A number that is lower the better ``value`` is."""
    return measure(metric).gain(0.0, value)


def _all(values: Any) -> str:
    return "; ".join(dict.fromkeys(values))


def _notes(
    benchmark: Benchmark, arms: Sequence[Arm], rows: Sequence[Row], every: Sequence[Result], tests: int
) -> list[str]:
    task, images = benchmark.of.task, benchmark.scale is not None
    several, lone = any(len(row.seeds) > 1 for row in rows), any(len(row.seeds) == 1 for row in rows)
    one = "images" if images else "samples"
    if apart(every) or all(len(result.scores) == 1 for result in every):
        covered = "seeds" if several else "nothing"
    else:
        covered = f"{one} and seeds" if several else one
    alone = f"{f'; of an arm with one seed, over {one}' if several else ''} alone"
    shared = [name for name in every[0].baseline if all(name in result.baseline for result in every)]
    base = {name: fmean(result.baseline[name] for result in every) for name in shared}
    notes = [
        f"Baseline, {task.base}: {show(base)}.",
        f"Intervals: 95 %, over {covered}{alone if lone else ''}."
        + (" Of one seed nothing is known about others." if lone else ""),
        f"One tile: 64 x 64 input pixels of the first test {one[:-1]}, trained weights, all arms in turns, "
        "median.",
    ]
    if benchmark.split_by_seed:
        notes.append("Each seed splits the data anew; arms of one seed see the same split.")
    whole = [measure(name).title for name in base if name not in next(iter(every[0].scores.values()))]
    if whole and covered not in ("seeds", "nothing"):
        notes.append(f"{', '.join(whole)}: of all samples at once, so that intervals are over seeds alone.")
    if tests:
        notes.append(
            f"Differences are to {_rivals(benchmark)}, paired by seed and {one[:-1]}; p by Wilcoxon's "
            f"signed-rank test over {one}, corrected by Holm for {tests} comparison{'s' * (tests > 1)}."
        )
    elif len(rows) > 1:
        notes.append(f"Differences are to {_rivals(benchmark)}, paired by seed.")
    ranks = benchmark.ranks
    ours = [row for row in rows if ranks in row.paper]
    theirs = sorted(ours, key=lambda row: _better(ranks, row.paper[ranks]))
    if ours != theirs:
        order = ", ".join(row.label for row in theirs)
        notes.append(f"By the paper's {measure(ranks).title} the order is another: {order}.")
    for arm in arms:
        changed = [
            f"{s}.{key}={value}" for s, options in arm.recipe.items() for key, value in options.items()
        ]
        if changed:
            notes.append(f"{arm.label} was trained with {', '.join(changed)}.")
    scored = {arm.name for arm in arms if arm.weights is not None}
    for arm in arms:
        if arm.features is not None:
            notes.append(f"{arm.label} is no network: {arm.model} on {arm.features}.")
        if arm.weights is not None:
            notes.append(f"{arm.label} was not trained here: its weights are scored as they are.")
    for arm in arms:
        if arm.each:
            each = [f"{part.sensor} ({benchmark.steps(part)} steps)" for part in benchmark.parts(arm)]
            notes.append(f"{arm.label}: {len(each)} networks, {', '.join(each)}; costs are of one of them.")
        if arm.members > 1:
            steps = benchmark.steps(benchmark.parts(arm)[0])
            notes.append(
                f"{arm.label}: {arm.members} networks of {steps} steps each, which share the steps of "
                "one run; their answers are averaged, and costs are of all of them."
            )
    for row in rows:
        missing = [seed for seed in benchmark.seeds if seed not in row.seeds]
        if missing and row.arm not in scored:
            notes.append(f"{row.label}: not finished with seed {', '.join(map(str, missing))}.")
    there = {arm.name for arm in arms}
    if absent := [arm.label for arm in benchmark.arms if arm.name not in there]:
        notes.append(f"Not finished with any seed: {', '.join(absent)}.")
    return notes


def _orders(rows: Sequence[Row], results: Mapping[str, Sequence[Result]], ranks: str) -> list[str]:
    """Whether the order of the rows is that of the paper, and of each seed."""
    notes = []
    known = [(row.scores[ranks].mean, row.paper[ranks]) for row in rows if ranks in row.paper]
    if len(known) >= _FEWEST:
        tau = agreement(np.array(known).T)
        notes.append(
            f"The order by {measure(ranks).title} beside the paper's, {len(known)} arms: Kendall's tau "
            f"{tau:+.2f} (1 the same order, 0 chance, -1 the reverse)."
        )
    seeds = sorted(set.intersection(*(set(row.seeds) for row in rows))) if rows else []
    if len(rows) >= _FEWEST and len(seeds) > 1:
        by_seed = [scores(results[row.arm], seeds, of(ranks)).mean(1) for row in rows]
        notes.append(
            f"The order under one seed beside another's, {len(seeds)} seeds: "
            f"Kendall's tau {agreement(np.array(by_seed).T):+.2f}."
        )
    return notes


def _ranking(
    rows: Sequence[Row], results: Mapping[str, Sequence[Result]], ranks: str
) -> tuple[Ranking | None, list[str]]:
    """Whether arms differ at all, and which, by their ranks in each sample; and that in words."""
    if len(rows) < _FEWEST:
        return None, []
    found = [scores(results[row.arm], row.seeds, of(ranks)) for row in rows]  # [S, N] each
    seeds = set.intersection(*(set(row.seeds) for row in rows))
    if len({one.shape[1] for one in found}) > 1 or (found[0].shape[1] == 1 and not seeds):
        return None, []
    what, blocks = "samples", [one.mean(0) for one in found]
    if len(blocks[0]) == 1:
        what, blocks = "seeds", [scores(results[row.arm], sorted(seeds), of(ranks))[:, 0] for row in rows]
    ranking = rank_arms(-_better(ranks, 1.0) * np.array(blocks).T)
    if ranking is None:
        few = (
            f"Friedman's and Nemenyi's tests want {FEWEST_BLOCKS} blocks or more; {len(blocks[0])} {what} are"
        )
        return None, [f"{few} too few, so arms are not ranked."]
    p = "p < 0.0001" if ranking.p < 1e-4 else f"p = {ranking.p:.4f}"
    order = ", ".join(f"{row.label} {rank:.2f}" for row, rank in zip(rows, ranking.ranks, strict=True))
    said = [f"Friedman's test over {ranking.blocks} {what}, {len(rows)} arms: {p}. Mean ranks: {order}."]
    if ranking.p < ranking.level:
        none = "; no two are" if max(ranking.ranks) - min(ranking.ranks) < ranking.critical else ""
        said.append(
            f"By Nemenyi's test at 5 %, arms differ whose mean ranks are {ranking.critical:.2f} apart{none}."
        )
    else:
        said.append("No arm is shown to differ from another, so that pairs are not tested by Nemenyi's.")
    return ranking, said


_FEWEST = 3
"""Arms that have an order worth speaking of."""
