"""How good is the model? What all else in an audit is to be read against."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geomoe.audit.rows import clustered_by, scored
from geomoe.audit.section import Finding, Section, Table
from geomoe.audit.subject import Subject
from geomoe.evaluation.statistics import Interval, paired_interval
from geomoe.metrics.measures import measure

__all__ = ["quality"]


def quality(subject: Subject) -> Section:
    """The metrics of the task on these samples, beside its baseline."""
    task = subject.task
    scores, base, by_class = task.metrics(), task.metrics(), task.metrics_by_class()
    counts: Tensor | None = None
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for _, batch in subject.batches():
        answer, truth, other = subject.answer(batch), task.truth(batch), task.baseline(batch)
        scores.update(answer, truth)
        base.update(other, truth)
        if by_class is not None:
            by_class.update(answer, truth)
            found = torch.bincount(truth[truth >= 0], minlength=answer.shape[1])
            counts = found if counts is None else counts + found
        mine, size = scored(subject, answer, batch)
        parts.append((mine, scored(subject, other, batch)[0], size))
    values, bases, sizes = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    there = sizes > 0
    of = measure(task.monitor)
    gain = paired_interval(of.gain(1, 0) * (values - bases)[there], sizes=sizes[there])
    all_of, all_base = ({n: float(v) for n, v in m.compute().items()} for m in (scores, base))
    tables = [_table(all_of, all_base, task.monitor, task.base)]
    if by_class is not None and counts is not None:
        classes = [name for output in subject.model.contract.outputs.values() for name in output.classes]
        tables.append(_by_class(classes, counts, by_class.compute()))
    return Section(
        "quality",
        "How good is the model?",
        f"Metrics of the task on these samples, beside {task.base}, which needs no learning. The gain in "
        f"{of.title} is paired, with a 95 % interval over {clustered_by(subject)}. What follows is of these "
        "weights alone: intervals cover other samples of the kind, not other trainings.",
        (_finding(task.monitor, task.base, all_of[task.monitor], all_base[task.monitor], gain),),
        tuple(tables),
        data={"scores": all_of, "baseline": all_base, "gain": [gain.mean, gain.low, gain.high]},
    )


def _finding(monitor: str, name: str, value: float, base: float, gain: Interval) -> Finding:
    of = measure(monitor)
    text = f"{of.title} is {of.text(value)}, that of {name} {of.text(base)}"
    if np.isnan(gain.low):
        return Finding("note", "quality", f"{text}.")
    text += f": a gain of {of.text(gain.mean)} ({of.text(gain.low)} to {of.text(gain.high)})."
    if gain.low > 0:
        return Finding("sound", "better_than_baseline", text)
    return Finding("warning", "not_better_than_baseline", text)


def _table(found: dict[str, float], base: dict[str, float], monitor: str, name: str) -> Table:
    rows = []
    for metric in sorted(found, key=lambda metric: metric != monitor):
        of = measure(metric)
        a, b = round(found[metric], of.digits), round(base[metric], of.digits)
        better = "higher" if of.best == "max" else "lower"
        rows.append((f"{of.title} {of.unit}".rstrip(), better, a, b, of.gain(a, b)))
    columns = ("metric", "better", "weights", name, "gain")
    return Table("quality", f"Metrics of the weights and of {name}.", columns, tuple(rows))


def _by_class(classes: list[str], counts: Tensor, found: dict[str, Tensor]) -> Table:
    return Table(
        "quality_by_class",
        "Metrics of the weights by class; support is the number of samples, or pixels, that are of it.",
        ("class", "support", *(measure(name).title for name in found)),
        tuple(
            (name, int(counts[i]), *(float(values[i]) if counts[i] else None for values in found.values()))
            for i, name in enumerate(classes)
        ),
    )
