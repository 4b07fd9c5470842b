"""Whether the model knows how right it is: its probabilities, or the reliability on its card."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from geomoe.audit.drawing import colours
from geomoe.audit.layers import layer_names
from geomoe.audit.rows import (
    Cells,
    affordable,
    blocks_a_side,
    clustered_by,
    gate_shares,
    multiple_of,
)
from geomoe.audit.section import Cell, Figure, Finding, Section, Table
from geomoe.audit.subject import Subject
from geomoe.data.sample import Batch
from geomoe.evaluation.statistics import bounded_interval
from geomoe.moe.plan import LastSignals, RoutingTrace

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["calibration", "calibration_sums", "gives_probabilities"]

_BINS = 15
_FAR = 0.05
"""Confidence that is surely farther than this from accuracy is a warning."""
_OFTEN = 3.0
"""So many times the stated rate of rows unlike training is a warning."""
_COLUMNS = ("number", "accuracy", "confidence", "too sure", "low", "high", "ECE", "NLL", "Brier")
_FEW = 30
"""Fewer answers than this of an expert have no figures of their own."""


def gives_probabilities(subject: Subject) -> bool:
    """Whether answers are probabilities of classes, of images or of pixels."""
    return any(subject.model.contract.gives(kind) for kind in ("label", "classes"))


def calibration_sums(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Of each answer ``[n, 4]``: confidence, whether it is right, negative log-likelihood, Brier score.

    The likelihood is in nats; the Brier score is the squared distance of the probabilities from the truth, 0
    to 2 (Brier 1950).

    Args:
        probabilities: ``[n, classes]``.
        truth: ``[n]`` int64.
    """
    p = probabilities.double()
    confidence, said = p.max(1)
    of_truth = p.gather(1, truth[:, None])[:, 0]
    brier = ((p - F.one_hot(truth, p.shape[1])) ** 2).sum(1)
    return torch.stack([confidence, (said == truth).double(), -of_truth.clamp_min(1e-12).log(), brier], 1)


@dataclass
class _Answers:
    """Answers of one expert, or of all: sums by cluster, the calibration error, and bins of confidence."""

    classes: int
    sums: dict[int, Tensor] = field(default_factory=dict)
    """By cluster: number, and sums of what :func:`calibration_sums` gives."""
    bins: Tensor = field(default_factory=lambda: torch.zeros(_BINS, 3, dtype=torch.float64))
    """Of each bin number, confidence, right."""

    def __post_init__(self) -> None:
        self.ece = MulticlassCalibrationError(self.classes, n_bins=_BINS)

    def add(self, probabilities: Tensor, truth: Tensor, clusters: Tensor) -> None:
        if not len(truth):
            return
        self.ece.update(probabilities, truth)
        found = calibration_sums(probabilities, truth)
        one = torch.cat([torch.ones(len(found), 1, dtype=torch.float64), found], 1)
        for cluster in clusters.unique().tolist():
            self.sums[cluster] = self.sums.get(cluster, 0.0) + one[clusters == cluster].sum(0)
        place = (found[:, 0] * _BINS).long().clamp_max(_BINS - 1)
        self.bins.index_add_(0, place, one[:, :3])

    @property
    def number(self) -> int:
        return int(self.bins[:, 0].sum())

    def figures(self) -> dict[str, float | None]:
        """What is said of them, by :data:`_COLUMNS`."""
        each = torch.stack(list(self.sums.values()))
        number, confidence, right, nll, brier = each.sum(0).tolist()
        apart, sizes = ((each[:, 1] - each[:, 2]) / each[:, 0]).numpy(), each[:, 0].numpy()
        # What is said with this confidence can all be right, or all wrong.
        over = bounded_interval(apart, sizes, (confidence / number - 1, confidence / number))
        values = (
            number, right / number, confidence / number, over.mean, *(over.ends or (None, None)),
            float(self.ece.compute()), nll / number, brier / number,
        )  # fmt: skip
        return dict(zip(_COLUMNS, values, strict=True))


def calibration(subject: Subject) -> Section:
    """Calibration of probabilities, of all answers and by the expert that counts most for each."""
    if gives_probabilities(subject):
        return _of_probabilities(subject)
    if subject.model.reference is not None:
        return _of_reference(subject)
    return Section(
        "calibration",
        _TITLE,
        "The model gives no probabilities, and its card has no routing reference by which it could say "
        "where it is not to be relied on; geomoe calibrate makes one.",
        (Finding("note", "not_calibrated", "The model does not say how sure it is."),),
    )


_TITLE = "Does the model know how right it is?"


def _of_probabilities(subject: Subject) -> Section:
    [output] = subject.model.contract.outputs.values()
    classes = len(output.classes)
    whole = _Answers(classes)
    by_expert: dict[int, _Answers] = {}
    first, layer = 0, None
    for names, batch in subject.batches():
        trace = RoutingTrace()
        answer, truth = subject.answer(batch, trace), subject.task.truth(batch)
        expert = _main_experts(subject, trace, batch, answer)
        samples = torch.arange(first, first + len(names))
        clusters = _clusters(samples, truth, blocks_a_side(subject))
        flat = answer.movedim(1, -1).reshape(-1, classes)
        known = truth.flatten() >= 0
        whole.add(flat[known], truth.flatten()[known], clusters[known])
        if expert is not None:
            layer = layer_names(subject.model.model, trace)[-1]
            for e in expert[known].unique().tolist():
                mine = known & (expert == e)
                if e >= 0:
                    answers = by_expert.setdefault(e, _Answers(classes))
                    answers.add(flat[mine], truth.flatten()[mine], clusters[mine])
        first += len(names)
    rows = [("all", whole), *((f"expert {e}", by_expert[e]) for e in sorted(by_expert))]
    rows = [(name, answers) for name, answers in rows if answers.number >= (_FEW if name != "all" else 1)]
    by = f" By expert: the one with the largest share of the gates of {layer}." if layer else ""
    figures = {name: answers.figures() for name, answers in rows}
    return Section(
        "calibration",
        _TITLE,
        f"Of every answer the confidence is its largest probability. ECE is the calibration error over "
        f"{_BINS} bins (Guo et al. 2017), NLL the negative log-likelihood of the truth in nats, Brier the "
        f"squared distance from it, 0 to 2. Too sure is mean confidence less accuracy, with a 95 % "
        f"interval over {clustered_by(subject)}.{by} Experts with fewer than {_FEW} answers are "
        f"left out.",
        tuple(_sureness(figures)),
        (
            Table(
                "calibration",
                "Calibration of all answers, and of those of each expert.",
                ("answers", *_COLUMNS),
                tuple((name, *each.values()) for name, each in figures.items()),
            ),
        ),
        (
            Figure(
                "calibration",
                "Reliability diagram: accuracy of the answers of each bin of confidence, whose areas are as "
                "their number; on the dashed line confidence is right, below it too high.",
                lambda drawing: _draw(drawing, whole),
            ),
        ),
        dict(figures),
    )


def _clusters(samples: Tensor, truth: Tensor, side: int) -> Tensor:
    """``[n]`` of which sample, or block of one, each answer is."""
    if truth.ndim == 1:
        return samples
    y, x = (torch.arange(n) * side // n for n in truth.shape[1:])
    block = (y[:, None] * side + x).flatten()
    return (samples[:, None] * side**2 + block).flatten()


def _main_experts(subject: Subject, trace: RoutingTrace, batch: Batch, answer: Tensor) -> Tensor | None:
    """``[n]`` the expert of the last layer that counts most for each answer; -1 where none does."""
    if not len(trace):
        return None
    plan = trace[-1]
    cells = Cells.of(plan, batch["image"], multiple_of(subject))
    if cells is None or plan.num_experts < 2:
        return None
    if answer.ndim == 2:
        share = gate_shares(plan).view(len(answer), -1, plan.num_experts).sum(1)
        return share.argmax(1).masked_fill(share.sum(1) <= 0, -1)
    return cells.on_image(plan.main).flatten()


def _sureness(figures: dict[str, dict[str, float | None]]) -> list[Finding]:
    found = []
    for name, each in figures.items():
        low, high = each["low"], each["high"]
        if low is None or high is None or not (low > _FAR or high < -_FAR):
            continue
        whose = "All answers together are" if name == "all" else f"Answers of {name} are"
        sure = "sure" if low > 0 else "unsure"
        text = (
            f"{whose} too {sure}: confidence {each['confidence']:.1%}, accuracy {each['accuracy']:.1%} of "
            f"{each['number']:.0f} (difference {each['too sure']:+.3f}, {low:+.3f} to {high:+.3f})."
        )
        found.append(Finding("warning", f"too_{sure}", text))
    if not found:
        of = figures["all"]
        text = (
            f"Mean confidence is {of['confidence']:.1%}, accuracy {of['accuracy']:.1%}; no expert's answers "
            f"are surely farther off than {_FAR}."
        )
        found.append(Finding("sound", "calibrated", text))
    return found


def _draw(drawing: Drawing, whole: _Answers) -> None:
    drawing.set_size_inches(3.4, 3.4)
    drawing.set_layout_engine("constrained")
    axes = drawing.subplots()
    number, confidence, right = whole.bins.numpy().T
    there = number > 0
    axes.plot([0, 1], [0, 1], "--", color="0.5", linewidth=0.8)
    area = 10 + 300 * number[there] / number.sum()
    at, height = confidence[there] / number[there], right[there] / number[there]
    axes.plot(at, height, color=colours((7,))[0], linewidth=1)
    axes.scatter(at, height, area, color=colours((7,))[0], alpha=0.6, linewidths=0)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_box_aspect(1)
    axes.set_xlabel("confidence", fontsize=8)
    axes.set_ylabel("accuracy", fontsize=8)
    axes.tick_params(labelsize=7)


def _of_reference(subject: Subject) -> Section:
    """How often the card's reference takes rows for unlike training, beside the rate that it states."""
    reference = subject.model.reference
    assert reference is not None
    some = affordable(subject, 1, least=32)
    beyond: list[float] = []
    sizes: list[float] = []
    by_expert: Tensor | float = 0.0
    first = 0
    for names, batch in some.batches():
        trace = LastSignals()
        some.answer(batch, trace)
        cells = Cells.of(trace[-1], batch["image"], multiple_of(some)) if len(trace) else None
        if trace.signals is None or cells is None or trace.signals.shape[1] != len(reference.mean):
            return Section(
                "calibration",
                _TITLE,
                "The routing reference on the card is not of this model's last router.",
                (
                    Finding(
                        "warning", "other_reference", "The card's routing reference is of another router."
                    ),
                ),
            )
        plan = trace[-1]
        # What a model pads counts for nothing.
        _, there = cells.means(batch["image"][:, :1], batch.get("valid"))
        real = there > 0 if plan.valid is None else (there > 0) & plan.valid
        far = reference.ood_score(trace.signals)[real] > 1
        clusters = cells.clusters(first, blocks_a_side(some))[real]
        for cluster in clusters.unique():
            mine = far[clusters == cluster]
            beyond.append(float(mine.double().mean()))
            sizes.append(float(len(mine)))
        share = gate_shares(plan)[real].double()
        by_expert = by_expert + torch.stack([share.sum(0), (share * far[:, None]).sum(0)])
        first += len(names)
    stated = 1 - reference.quantile
    rate = bounded_interval(np.asarray(beyond), np.asarray(sizes))
    assert isinstance(by_expert, Tensor)
    rows: list[tuple[Cell, ...]] = [("all", sum(sizes), rate.mean, *(rate.ends or (None, None)))]
    rows += [
        (f"expert {e}", n, far / n if n else None, None, None)
        for e, (n, far) in enumerate(by_expert.T.tolist())
    ]
    between = "" if np.isnan(rate.low) else f" ({rate.low:.2%} to {rate.high:.2%})"
    text = f"{rate.mean:.2%}{between} of rows are taken for unlike training; the card states {stated:.2%}."
    low = rate.mean if np.isnan(rate.low) else rate.low
    finding = (
        Finding(
            "warning", "unlike_training", f"{text} These samples are not what the threshold was found on."
        )
        if low > _OFTEN * stated
        else Finding("sound", "as_stated", text)
    )
    return Section(
        "calibration",
        _TITLE,
        "The model gives no probabilities; what its card says of reliability is looked at: a row is unlike "
        "training where the last router's input lies farther from that of training than the threshold, which "
        f"{stated:.2%} of {reference.data} passed. On {len(some.samples.samples)} of "
        f"{len(subject.samples.samples)} samples, 95 % interval over {clustered_by(some)}.",
        (finding,),
        (
            Table(
                "calibration",
                "Share of rows that are taken for unlike training, of all and by expert.",
                ("rows", "number", "unlike training", "low", "high"),
                tuple(rows),
            ),
        ),
        (),
        {"stated": stated, "found": rate.mean, "interval_95": rate.ends},
    )
