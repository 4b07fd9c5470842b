"""What spoils the result and the routing: corruptions, missing bands and sensors, misregistration."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from geomoe.audit.damage import Damage, Spread, damages
from geomoe.audit.rows import affordable, clustered_by, gate_shares, scored
from geomoe.audit.section import Cell, Figure, Finding, Section, Table
from geomoe.audit.stability import overlap
from geomoe.audit.subject import Subject
from geomoe.evaluation.statistics import Interval, bounded_interval, paired_interval
from geomoe.layers.sensors import presence, without
from geomoe.metrics.measures import measure
from geomoe.moe.plan import RoutingPlan, RoutingTrace

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["corruption"]

_SAMPLES = 100
_PASSES = 24


@dataclass
class _Watched:
    """Of one way to spoil images, part by part."""

    change: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    differs: bool = False
    """Whether any answer is another one than without it."""

    @cached_property
    def interval(self) -> Interval:
        """Of the metric's change."""
        return paired_interval(np.asarray(self.change), sizes=np.asarray(self.sizes))

    @cached_property
    def alike(self) -> Interval | None:
        """Of the agreement of plans, over samples; None where there are none to compare."""
        known = [value for value in self.agreement if not np.isnan(value)]
        return bounded_interval(np.asarray(known)) if known else None


def corruption(subject: Subject) -> Section:
    """The metric's change on spoiled images, and how far their plans stay those of clean ones."""
    sensors = subject.model.contract.sensors
    some = affordable(subject, _PASSES + 4 * len(sensors))
    spread = Spread.of(batch["image"] for _, batch in some.batches())
    ways = damages(spread, subject.seed, sensors)
    watched = [_Watched() for _ in ways]
    images = subject.model.contract.gives("image")
    clean_entropy: list[float] = []
    for number, (_, batch) in enumerate(some.batches()):
        trace = RoutingTrace()
        answer = some.answer(batch, trace)
        clean, size = scored(some, answer, batch)
        clean_entropy += _entropies(trace)
        counted = size > 0
        for way, kept in zip(ways, watched, strict=True):
            spoiled = {**batch, "image": way.apply(batch["image"], number)}
            if way.light and images and batch["target"].shape[1] == batch["image"].shape[1]:
                spoiled["target"] = way.apply(batch["target"], number)
            if way.lost is not None:
                there = presence(batch["image"], sensors, batch.get("present"))
                spoiled["present"] = without(there, sensors, way.lost)
            now = RoutingTrace()
            other = some.answer(spoiled, now)
            kept.differs |= not torch.allclose(other, answer, equal_nan=True)
            value, _ = scored(some, other, spoiled)
            kept.change += (value - clean)[counted].tolist()
            kept.sizes += size[counted].tolist()
            kept.agreement += _agreements(trace, now)
            kept.entropy += _entropies(now)
    before = float(np.mean(clean_entropy)) if clean_entropy else None
    of = measure(subject.task.monitor)
    rows = [_row(way, kept, before) for way, kept in zip(ways, watched, strict=True)]
    return Section(
        "corruption",
        "What does the result, and the routing, stand?",
        "Images are spoiled before the model sees them: noise, blur, JPEG, brightness and "
        "contrast, in units of each band's standard deviation over the samples where it says std; bands "
        "that are missing, filled with their mean, of many bands groups of neighbours; and the second half "
        f"of the bands moved against the first. Of several sensors each is taken away in turn, and each is "
        f"moved while the others stay. The truth stays; an image that is to be given is as bright "
        f"and as flat as the spoiled one. The change of {of.title} is paired by {clustered_by(some)}, "
        f"with 95 % intervals. Agreement is the part of the gates that goes to the same experts "
        f"as on the clean image, with its interval over samples, entropy that of the "
        f"router's belief over its largest (clean: {_said(before)}). On "
        f"{len(some.samples.samples)} of {len(subject.samples.samples)} samples.",
        tuple(_findings(ways, watched, subject.task.monitor)),
        (
            Table(
                "corruption",
                f"Change of {of.title} on spoiled images, and what became of the plans.",
                (
                    "damage",
                    "strength",
                    f"change of {of.title}",
                    "low",
                    "high",
                    "agreement",
                    "low",
                    "high",
                    "entropy",
                ),
                tuple(rows),
            ),
        ),
        (
            Figure(
                "corruption",
                f"Change of {of.title} (above, with 95 % intervals) and agreement of plans with those of "
                f"clean images (below), by kind of damage from weak to strong; of missing bands one after "
                f"the other.",
                lambda drawing: _draw(drawing, ways, watched, of.title),
            ),
        ),
        {
            "monitor": subject.task.monitor,
            "samples": len(some.samples.samples),
            "clean_entropy": before,
            "damages": [
                {
                    "kind": row[0],
                    "strength": row[1],
                    "change": row[2],
                    "interval_95": [row[3], row[4]],
                    "agreement": row[5],
                    "agreement_95": [row[6], row[7]],
                    "entropy": row[8],
                }
                for row in rows
            ],
        },
    )


def _said(value: float | None) -> str:
    return "nothing is routed" if value is None else f"{value:.3f}"


def _of_samples(values: Tensor, plan: RoutingPlan) -> Tensor:
    """Means over the valid rows of each sample, of values ``[N]``; nan of one without."""
    number = plan.grid[0] if plan.num_rows % plan.grid[0] == 0 else 1
    there = torch.ones_like(values) if plan.valid is None else plan.valid.to(values)
    rows, weight = (values * there).view(number, -1), there.view(number, -1)
    return rows.sum(1) / weight.sum(1)


def _agreements(clean: RoutingTrace, now: RoutingTrace) -> list[float]:
    """By sample, means over the layers whose rows are the same."""
    found = [
        _of_samples(overlap(gate_shares(a), gate_shares(b)), a)
        for a, b in zip(clean, now, strict=True)
        if a.num_rows == b.num_rows
    ]
    return torch.stack(found).nanmean(0).tolist() if found else []


def _entropies(trace: RoutingTrace) -> list[float]:
    found = [_of_samples(plan.entropy, plan) for plan in trace]
    return torch.stack(found).nanmean(0).tolist() if found else []


def _row(way: Damage, kept: _Watched, before: float | None) -> tuple[Cell, ...]:
    interval, alike = kept.interval, kept.alike
    ends = interval.ends or (None, None)
    plans = (None, None, None) if alike is None else (alike.mean, *(alike.ends or (None, None)))
    entropy = float(np.nanmean(kept.entropy)) if kept.entropy else None
    return (way.kind, way.strength, interval.mean, *ends, *plans, entropy)


def _findings(ways: list[Damage], watched: list[_Watched], monitor: str) -> list[Finding]:
    of = measure(monitor)
    changes = [kept.interval for kept in watched]
    worst = min(range(len(ways)), key=lambda i: of.gain(changes[i].mean, 0.0))
    said = f"{ways[worst].kind} ({ways[worst].strength})"
    found = []
    if of.gain(changes[worst].mean, 0.0) < 0:
        ends = changes[worst].ends
        between = "" if ends is None else f" ({of.text(ends[0], True)} to {of.text(ends[1], True)})"
        change = of.text(changes[worst].mean, True)
        text = f"Of what was tried {said} costs most: {of.title} {change}{between}."
        found.append(Finding("note", "most_harmful", text))
    agreement = [float(np.nanmean(kept.agreement)) if kept.agreement else np.nan for kept in watched]
    if not np.isnan(agreement).any():
        loss = [-of.gain(change.mean, 0.0) for change in changes]
        if np.ptp(agreement) > 0 and np.ptp(loss) > 0:
            together = stats.spearmanr(1 - np.asarray(agreement), loss)
            moves = "plans move where" if together.statistic > 0.5 else "plans say little of where"
            text = (
                f"Over the {len(ways)} damages the loss and the part of the gates that moves to other "
                f"experts have a rank correlation of {together.statistic:.2f}: {moves} results suffer."
            )
            found.append(Finding("note", "routing_and_quality", text))
    for way, kept in zip(ways, watched, strict=True):
        if way.lost is not None:
            found.append(_of_sensor(way.lost, kept, monitor))
    return found


def _of_sensor(name: str, kept: _Watched, monitor: str) -> Finding:
    """What a sensor is to the model, by what becomes of answers and plans without it."""
    if not kept.differs:
        text = f"The model ignores the sensor {name}: without it every answer is the same."
        return Finding("warning", "sensor_ignored", text)
    of, change, alike = measure(monitor), kept.interval, kept.alike
    between = "" if change.ends is None else f" ({of.text(change.low, True)} to {of.text(change.high, True)})"
    plans = "" if alike is None else f"; {alike.mean:.0%} of gates go to the same experts"
    text = f"{of.title} changes by {of.text(change.mean, True)}{between}{plans}."
    if max(of.gain(change.low, 0.0), of.gain(change.high, 0.0)) < 0:
        return Finding("note", "sensor_needed", f"Without the sensor {name} results are worse: {text}")
    return Finding(
        "note", "sensor_not_needed", f"Without the sensor {name} results are not shown to be worse: {text}"
    )


def _draw(drawing: Drawing, ways: list[Damage], watched: list[_Watched], title: str) -> None:
    drawing.set_size_inches(7.0, 4.2)
    drawing.set_layout_engine("constrained")
    above, below = drawing.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2)})
    kinds = list(dict.fromkeys(way.kind for way in ways))
    at = np.arange(len(ways)) + np.array([kinds.index(way.kind) for way in ways])
    for number, kind in enumerate(kinds):
        mine = [i for i, way in enumerate(ways) if way.kind == kind]
        changes = [watched[i].interval for i in mine]
        means = np.array([c.mean for c in changes])
        reach = np.nan_to_num(np.array([(c.mean - c.low, c.high - c.mean) for c in changes])).clip(0).T
        above.errorbar(at[mine], means, reach, fmt="o", color=f"C{number}", markersize=4, linewidth=1)
        if all(watched[i].agreement for i in mine):
            shown = [float(np.nanmean(watched[i].agreement)) for i in mine]
            below.bar(at[mine], shown, color=f"C{number}")
        above.text(
            float(at[mine].mean()), 1.02, kind, ha="center", fontsize=7, transform=above.get_xaxis_transform()
        )
    above.axhline(0, color="0.6", linewidth=0.8)
    above.set_ylabel(f"change of {title}", fontsize=8)
    below.set_ylabel("agreement", fontsize=8)
    below.set_ylim(0, 1)
    below.set_xticks(at, [way.strength for way in ways], rotation=60, ha="right", fontsize=6)
    for axes in (above, below):
        axes.tick_params(axis="y", labelsize=7)
