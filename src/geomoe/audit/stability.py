"""Whether plans stay what they are when tiles are cut elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from geomoe.audit.drawing import colours
from geomoe.audit.layers import layer_names
from geomoe.audit.rows import (
    Cells,
    affordable,
    blocks_a_side,
    clustered_by,
    fewer,
    gate_shares,
    multiple_of,
)
from geomoe.audit.section import Cell, Figure, Finding, Section, Table
from geomoe.audit.subject import Subject
from geomoe.evaluation.statistics import Interval, bounded_interval
from geomoe.moe.plan import RoutingTrace

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["over_chance", "overlap", "stability"]

_SAMPLES = 32
_SHIFTS = (1, 2, 4, 8, 16)
_ROWS = 4000
"""Rows of a layer that the level of chance is found on, at most."""
_CLEAR = 0.1
"""Agreement over chance, of what there is above it, below which plans are called unstable."""


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """``[...]`` how far two plans give rows the same experts: the smaller of each two shares, summed; 0 to 1.

    With one expert a row 1 where it is the same and 0 where not; with several, the part of the gates in
    common.

    Args:
        a: ``[..., E]`` shares of each row's gates; see :func:`geomoe.audit.rows.gate_shares`.
        b: the same of the other plan.
    """
    return torch.minimum(a, b).sum(-1)


@dataclass
class _Agreement:
    """Agreement of two plans of a layer, part by part, and some of their rows."""

    found: list[float] = field(default_factory=list)
    rows: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, a: Tensor, b: Tensor, clusters: Tensor) -> None:
        """Shares ``[N, E]`` of both, and each row's cluster; rows without an expert are left out."""
        there = (a.sum(1) > 0) & (b.sum(1) > 0)
        a, b, clusters = a[there], b[there], clusters[there]
        alike = overlap(a, b)
        for cluster in clusters.unique():
            self.found.append(float(alike[clusters == cluster].mean()))
        step = -(-len(a) // max(_ROWS // 8, 1))
        if sum(len(r) for r, _ in self.rows) < _ROWS:
            self.rows.append((a[::step], b[::step]))

    @property
    def interval(self) -> Interval:
        return bounded_interval(np.asarray(self.found))

    def chance(self, seed: int) -> float:
        """Of rows dealt anew: what plans with the same use of experts agree by luck."""
        a, b = (torch.cat(side) for side in zip(*self.rows, strict=True))
        rng = torch.Generator().manual_seed(seed)
        drawn = [overlap(a, b[torch.randperm(len(b), generator=rng)]).mean() for _ in range(10)]
        return float(torch.stack(drawn).mean())


def stability(subject: Subject) -> Section:
    """Agreement of the plans of the same pixels when images are cut some pixels farther down and right."""
    some, multiple, side = (
        fewer(affordable(subject, len(_SHIFTS) + 1), _SAMPLES),
        multiple_of(subject),
        blocks_a_side(subject),
    )
    layers: dict[str, dict[int, _Agreement]] = {}
    first = 0
    for names, batch in some.batches():
        height, width = batch["image"].shape[-2:]
        whole = _on_pixels(some, batch, multiple)
        for shift in (s for s in _SHIFTS if s <= min(height, width) // 4):
            cut = {key: _cut(value, shift, (height, width)) for key, value in batch.items()}
            for name, (moved, clusters) in _on_pixels(some, cut, multiple, first, side).items():
                if name not in whole:
                    continue
                before = whole[name][0]
                if moved.ndim == 4:
                    before = before[..., shift:, shift:]
                    moved, before = (x.movedim(1, -1).flatten(0, -2) for x in (moved, before))
                layers.setdefault(name, {}).setdefault(shift, _Agreement()).add(before, moved, clusters)
        first += len(names)
    found = {
        name: {s: (a.interval, a.chance(subject.seed)) for s, a in by.items() if a.found}
        for name, by in layers.items()
    }
    return Section(
        "stability",
        "Does routing depend on where tiles are cut?",
        "Images are cut some pixels farther down and right, and the plans of the pixels that both hold are "
        "compared: agreement is the part of each pixel's gates that goes to the same experts, 1 where all "
        "does. Chance is that of the same plans with their rows dealt anew. A layer whose cells are larger "
        f"than the shift cannot agree wholly. On {len(some.samples.samples)} of "
        f"{len(subject.samples.samples)} samples; intervals are of 95 %, over "
        f"{clustered_by(some)}.",
        tuple(_findings(found)),
        (_table(found),) if found else (),
        (_figure(found),) if found else (),
        {
            name: {
                str(s): {"agreement": i.mean, "interval_95": i.ends, "chance": c} for s, (i, c) in by.items()
            }
            for name, by in found.items()
        },
    )


def _cut(value: Tensor, shift: int, sides: tuple[int, int]) -> Tensor:
    return value[..., shift:, shift:] if value.ndim >= 3 and value.shape[-2:] == sides else value


def _on_pixels(
    subject: Subject, batch: dict[str, Tensor], multiple: int, first: int = 0, side: int = 1
) -> dict[str, tuple[Tensor, Tensor]]:
    """By layer shares of pixels ``[B, E, H, W]``, or of samples ``[B, E]``, and clusters ``[N]``."""
    trace = RoutingTrace()
    subject.answer(batch, trace)
    found = {}
    for name, plan in zip(layer_names(subject.model.model, trace), trace, strict=True):
        cells = Cells.of(plan, batch["image"], multiple)
        if cells is None or plan.num_experts < 2:
            continue
        clusters = cells.clusters(first, side)
        if len(plan.grid) == 1:
            found[name] = gate_shares(plan), clusters
        else:
            found[name] = cells.on_image(gate_shares(plan)), cells.on_image(clusters).flatten()
    return found


_Found = dict[str, dict[int, tuple[Interval, float]]]


def over_chance(agreement: float, chance: float) -> float:
    """The part of what there is above chance, as Cohen's kappa; 1 where chance itself agrees wholly."""
    return (agreement - chance) / (1 - chance) if chance < 1 - 1e-9 else 1.0


def _findings(found: _Found) -> list[Finding]:
    least: tuple[float, str, int] | None = None
    for name, by in found.items():
        for shift, (interval, chance) in by.items():
            kappa = over_chance(interval.mean, chance)
            if least is None or kappa < least[0]:
                least = kappa, name, shift
    if least is None:
        return [Finding("note", "no_shifts", "No layer's plans can be compared under shifts of the image.")]
    kappa, name, shift = least
    interval, chance = found[name][shift]
    text = (
        f"Plans agree least in {name}, when images are cut {shift} pixels farther: {interval.mean:.0%} of "
        f"gates go to the same experts, {chance:.0%} by chance."
    )
    if kappa < _CLEAR:
        return [Finding("warning", "unstable_under_shifts", f"{text} The cut decides, not what is shown.")]
    return [Finding("sound", "stable_under_shifts", text)]


def _table(found: _Found) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (name, shift, interval.mean, interval.low, interval.high, chance, over_chance(interval.mean, chance))
        for name, by in found.items()
        for shift, (interval, chance) in by.items()
    ]
    return Table(
        "stability",
        "Agreement of plans of the same pixels when images are cut elsewhere.",
        ("layer", "shift, pixels", "agreement", "low", "high", "chance", "over chance"),
        tuple(tuple(None if isinstance(x, float) and np.isnan(x) else x for x in row) for row in rows),
    )


def _figure(found: _Found) -> Figure:
    return Figure(
        "stability",
        "Agreement of plans of the same pixels by how many pixels farther images are cut, with 95 % "
        "intervals, and the level of chance (dotted), by layer.",
        lambda drawing: _draw(drawing, found),
    )


def _draw(drawing: Drawing, found: _Found) -> None:
    drawing.set_size_inches(5.2, 3.0)
    drawing.set_layout_engine("constrained")
    axes, tint = drawing.subplots(), colours((7,))
    for number, (name, by) in enumerate(found.items()):
        shifts = list(by)
        values = np.array([(i.mean, i.low, i.high, c) for i, c in by.values()])
        axes.plot(shifts, values[:, 0], ".-", color=tint[number % 7], label=name, linewidth=1)
        axes.fill_between(shifts, values[:, 1], values[:, 2], color=tint[number % 7], alpha=0.2, linewidth=0)
        axes.plot(shifts, values[:, 3], ":", color=tint[number % 7], linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({s for by in found.values() for s in by}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("shift, pixels", fontsize=8)
    axes.set_ylabel("agreement", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=6, frameon=False)
