"""Whether routing tells what the model should not be trusted with: score, threshold, risk by coverage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomoe.audit.calibration import gives_probabilities
from geomoe.audit.damage import Damage, Spread, damages
from geomoe.audit.drawing import colours
from geomoe.audit.rows import Cells, affordable, blocks_a_side, clustered_by, multiple_of, scored
from geomoe.audit.section import Figure, Finding, Section, Table
from geomoe.audit.selective import (
    auroc,
    chance_of_alarms,
    difference_of_areas,
    risk_by_coverage,
    threshold_of,
)
from geomoe.audit.subject import Subject
from geomoe.data.sample import Batch
from geomoe.evaluation.statistics import Interval
from geomoe.metrics.measures import measure
from geomoe.models.reference import RoutingReference
from geomoe.moe.plan import LastSignals

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["ood"]

_RATE = 0.05
"""Of samples like those of the threshold, the share that may be taken for strange."""
_CHANCE = 0.01
"""Of as many alarms, below which they are too many."""
_LEAST, _PASSES = 40, 8
_ROWS = 200
"""Rows of a batch's sample that a reference is learned from, where the card has none."""
_ROUTING, _ENTROPY, _CONFIDENCE = "routing distance", "router entropy", "confidence"


@dataclass
class _Scored:
    """Samples, or parts of them, by score name; values of the metric beside them."""

    scores: dict[str, list[float]] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)

    def of(self, name: str) -> NDArray[np.float64]:
        return np.asarray(self.scores[name])


def ood(subject: Subject) -> Section:
    """AUROC of routing scores against strange inputs, false alarms of a threshold, risk by coverage."""
    some = affordable(subject, _PASSES, least=_LEAST)
    reference = subject.model.reference or _learned(some)
    if reference is None:
        return Section(
            "ood", _TITLE, "No layer says what its router was shown, so there is no score.",
            (Finding("note", "no_routing_score", "The model routes nothing that a score could be made of."),),
        )  # fmt: skip
    spread = Spread.of(batch["image"] for _, batch in some.batches())
    ways = {"clean": _as_it_is, **_strange(spread, subject.seed)}
    found = {name: _Scored() for name in ways}
    for number, (_, batch) in enumerate(some.batches()):
        for name, way in ways.items():
            _score(some, {**batch, "image": way(batch["image"], number)}, reference, found[name])
    clean = found.pop("clean")
    # What a reference was learned from neither sets its threshold nor tries it.
    place = np.arange(len(clean.values))
    test = np.full(len(place), True) if subject.model.reference else place % 2 == 1
    limits, tried = (test & (place // 2 % 2 == half) for half in (0, 1))
    names = list(clean.scores)
    told = {
        (kind, name): auroc(clean.of(name)[test], each.of(name)[test])
        for kind, each in found.items()
        for name in names
    }
    alarms = {}
    for name in names:
        limit = threshold_of(clean.of(name)[limits], _RATE)
        alarms[name] = {
            "clean": float((clean.of(name)[tried] > limit).mean()),
            **{kind: float((each.of(name)[tried] > limit).mean()) for kind, each in found.items()},
        }
    there = (np.asarray(clean.sizes) > 0) & test
    risks, unit = _risks(subject, np.asarray(clean.values), there)
    curves = {name: risk_by_coverage(clean.of(name)[there], risks) for name in names}
    areas = {name: float(curve.mean()) for name, curve in curves.items()}
    best = float(risk_by_coverage(risks, risks).mean())
    learned = "learned on every second sample" if subject.model.reference is None else "of the card"
    count = int(tried.sum())
    baseline = "; confidence one less the largest probability, the baseline" if _CONFIDENCE in names else ""
    chance = chance_of_alarms(round(alarms[_ROUTING]["clean"] * count), count, int(limits.sum()), _RATE)
    return Section(
        "ood",
        _TITLE,
        "Routing distance is the Mahalanobis distance of the last router's input to a reference "
        f"({learned}), a mean over the rows of a sample; router entropy that of the router's belief"
        f"{baseline}. AUROC is the probability that a strange input has the higher score than a clean one; "
        f"at 0.5 it says nothing. The threshold is the {1 - _RATE:.0%} quantile of half of the clean "
        f"{clustered_by(some)} that nothing was learned from, tried on the other half. Risk is of the clean "
        f"ones that are kept when those of highest score are not: {unit}; AURC its mean over all coverages, "
        f"less is better. On {len(some.samples.samples)} of {len(subject.samples.samples)} samples; "
        f"intervals of 95 %.",
        tuple(_findings(told, alarms, areas, risks, clean, there, chance, count, subject.seed)),
        (
            Table(
                "ood_auroc",
                "AUROC of each score against strange inputs, with 95 % intervals, and the share that its "
                "threshold finds.",
                ("input", *(x for name in names for x in (f"{name}: AUROC", "low", "high", "found"))),
                tuple(
                    (
                        kind,
                        *(
                            x
                            for name in names
                            for i in (told[kind, name],)
                            for x in (i.mean, *(i.ends or (None, None)), alarms[name][kind])
                        ),
                    )
                    for kind in found
                ),
            ),
            Table(
                "ood_risk",
                "Clean inputs: share that is taken for strange, and the area under the risk-coverage curve.",
                ("score", "false alarms", "stated", "AURC"),
                (
                    *((name, alarms[name]["clean"], _RATE, areas[name]) for name in names),
                    ("none: any order", None, None, float(risks.mean())),
                    ("the risk itself", None, None, best),
                ),
            ),
        ),
        (
            Figure(
                "ood_risk",
                f"Risk of the clean samples that are kept ({unit}), by the share that is kept, for each "
                f"score; dashed: any order, dotted: ordered by the risk itself.",
                lambda drawing: _draw(drawing, curves, risks),
            ),
        ),
        {
            "samples": len(some.samples.samples),
            "auroc": {
                kind: {
                    name: {"auroc": told[kind, name].mean, "interval_95": told[kind, name].ends}
                    for name in names
                }
                for kind in found
            },
            "found": alarms,
            "stated": _RATE,
            "aurc": {**areas, "any order": float(risks.mean()), "the risk itself": best},
        },
    )


_TITLE = "Does routing tell what the model should not be trusted with?"


def _as_it_is(x: Tensor, number: int) -> Tensor:
    return x


def _strange(spread: Spread, seed: int) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """Inputs that were not to be expected: the strongest of some damages, and what is no image any more."""
    last: dict[str, Damage] = {way.kind: way for way in damages(spread, seed)}
    kinds = ("noise", "blur", "JPEG", "contrast")
    found: dict[str, Callable[[Tensor, int], Tensor]] = {
        f"{kind}, {last[kind].strength}": last[kind].apply for kind in kinds
    }

    def shuffled(x: Tensor, number: int) -> Tensor:
        order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(seed + number))
        return x.flatten(2)[:, :, order].view_as(x)

    def noise(x: Tensor, number: int) -> Tensor:
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + number))
        return spread.mean + spread.std * drawn.to(x)

    return {**found, "pixels in any order": shuffled, "noise alone": noise}


def _learned(subject: Subject) -> RoutingReference | None:
    """A reference of every second sample or block, where the card has none."""
    seen = []
    first = 0
    for names, batch in subject.batches():
        trace = LastSignals()
        subject.answer(batch, trace)
        cells = Cells.of(trace[-1], batch["image"], multiple_of(subject)) if len(trace) else None
        if trace.signals is None or cells is None:
            return None
        real = _real(cells, batch) & (cells.clusters(first, blocks_a_side(subject)) % 2 == 0)
        rows = trace.signals[real]
        seen.append(rows[:: max(1, len(rows) // (_ROWS * len(names)))])
        first += len(names)
    rows = torch.cat(seen)
    return RoutingReference.learn(rows, rows, 1 - _RATE, "every second sample of the audit")


def _real(cells: Cells, batch: Batch) -> Tensor:
    """``[N]`` bool, rows that are neither padding nor invalid."""
    _, there = cells.means(batch["image"][:, :1], batch.get("valid"))
    return there > 0 if cells.plan.valid is None else (there > 0) & cells.plan.valid


def _score(subject: Subject, batch: Batch, reference: RoutingReference, kept: _Scored) -> None:
    trace = LastSignals()
    answer = subject.answer(batch, trace)
    side = blocks_a_side(subject)
    values, sizes = scored(subject, answer, batch)
    kept.values += values.tolist()
    kept.sizes += sizes.tolist()
    plan = trace[-1]
    cells = Cells.of(plan, batch["image"], multiple_of(subject))
    assert cells is not None
    assert trace.signals is not None
    place, real = cells.clusters(0, side), _real(cells, batch)

    def mean(of: Tensor, where: Tensor, counted: Tensor) -> list[float]:
        total, number = (torch.zeros(len(values), dtype=torch.float64) for _ in range(2))
        total.index_add_(0, where[counted], of[counted].double())
        number.index_add_(0, where[counted], torch.ones(int(counted.sum()), dtype=torch.float64))
        return (total / number.clamp_min(1)).tolist()

    found = {
        _ROUTING: mean(reference.ood_score(trace.signals).nan_to_num(), place, real),
        _ENTROPY: mean(plan.entropy, place, real),
    }
    if gives_probabilities(subject):
        unsure = 1 - answer.amax(1)
        if unsure.ndim == 1:
            found[_CONFIDENCE] = unsure.double().tolist()
        else:
            pixels = cells.on_image(place).flatten() if side > 1 else _samples(unsure)
            known = (
                batch["valid"].flatten() if "valid" in batch else torch.ones(unsure.numel(), dtype=torch.bool)
            )
            found[_CONFIDENCE] = mean(unsure.flatten(), pixels, known)
    for name, scores in found.items():
        kept.scores.setdefault(name, []).extend(scores)


def _samples(of_pixels: Tensor) -> Tensor:
    return torch.arange(len(of_pixels)).repeat_interleave(of_pixels[0].numel())


def _risks(
    subject: Subject, values: NDArray[np.float64], there: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], str]:
    """What is lost on each sample that counts, and in words."""
    of = measure(subject.task.monitor)
    if gives_probabilities(subject):
        return 1 - values[there], f"1 - {of.title}"
    best = values[there].max() if of.best == "max" else values[there].min()
    away = f" ({of.unit})" if of.unit else ""
    return np.abs(best - values[there]), f"{of.title}{away} short of the best sample"


def _findings(
    told: dict[tuple[str, str], Interval],
    alarms: dict[str, dict[str, float]],
    areas: dict[str, float],
    risks: NDArray[np.float64],
    clean: _Scored,
    there: NDArray[np.bool_],
    chance: float,
    count: int,
    seed: int,
) -> list[Finding]:
    found = []
    mine = {kind: each for (kind, name), each in told.items() if name == _ROUTING}
    blind = [kind for kind, area in mine.items() if not area.low > 0.5]
    said = ", ".join(f"{kind} {area.mean:.2f}" for kind, area in mine.items())
    if len(blind) == len(mine):
        text = f"The routing distance tells no strange input surely from clean ones (AUROC: {said})."
        found.append(Finding("warning", "ood_blind", text))
    else:
        but = f" Not surely told: {', '.join(blind)}." if blind else ""
        found.append(
            Finding("sound", "ood_told", f"The routing distance tells strange inputs (AUROC: {said}).{but}")
        )
    rate = alarms[_ROUTING]["clean"]
    text = f"Its threshold takes {rate:.0%} of {count} clean ones for strange, stated {_RATE:.0%}"
    often = chance < _CHANCE
    found.append(
        Finding(
            "warning" if often else "sound",
            "too_many_alarms" if often else "alarms_as_stated",
            f"{text}: as many or more come by chance with a probability of {chance:.2g}.",
        )
    )
    scores = clean.of(_ROUTING)[there]
    other = clean.of(_CONFIDENCE)[there] if _CONFIDENCE in areas else None
    ends = difference_of_areas(scores, other, risks, seed)
    said = "too few mistakes for an interval" if ends is None else f"{ends[0]:+.4f} to {ends[1]:+.4f}"
    against = "any order" if other is None else "confidence"
    base = float(risks.mean()) if other is None else areas[_CONFIDENCE]
    found.append(
        Finding(
            "note",
            "selective_risk",
            f"When the most suspicious are left out first, AURC is {areas[_ROUTING]:.4f} by routing "
            f"distance and {base:.4f} by {against} (difference {areas[_ROUTING] - base:+.4f}, {said}).",
        )
    )
    return found


def _draw(drawing: Drawing, curves: dict[str, NDArray[np.float64]], risks: NDArray[np.float64]) -> None:
    drawing.set_size_inches(4.6, 3.2)
    drawing.set_layout_engine("constrained")
    axes, tint = drawing.subplots(), colours((7,))
    at = np.arange(1, len(risks) + 1) / len(risks)
    for number, (name, curve) in enumerate(curves.items()):
        axes.plot(at, curve, color=tint[number], label=name, linewidth=1.2)
    axes.axhline(risks.mean(), linestyle="--", color="0.5", linewidth=0.8)
    axes.plot(at, risk_by_coverage(risks, risks), ":", color="0.3", linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share kept", fontsize=8)
    axes.set_ylabel("risk", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False)
