"""Do routers learn from the task, and do plans depend on what they should, and on nothing else?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from geomoe.audit.layers import layer_names, listed
from geomoe.audit.section import Finding, Level, Section, Table
from geomoe.audit.subject import Subject
from geomoe.audit.units import total_loss
from geomoe.data.sample import Batch
from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.routing.router import AnyRouter
from geomoe.moe.telemetry import agreement

__all__ = ["gradient"]

_SAMPLES = 8
_NO_GRADIENT = 1e-6
"""Of a router's gradient over that of all other weights, root mean squares: below it is rounding."""
_CONSTANT = 1e-5
"""Range of an expert's probability over all rows, below which a gate emits a constant."""
_OTHER = 0.01
"""Share of choices, or difference in probability, from which two plans are not the same but for rounding."""


@dataclass
class Checked:
    """What was found of one layer.

    Attributes:
        learns: whether something is there that should learn: a router, or the weights of another gate.
        gradient: root mean square of the gradient of its weights over that of all others; None where it has
            none.
        spread: largest range of an expert's probability over rows.
        repeated: share of choices on which two passes over the same batch differ, or difference in
            probability if that is more.
        alone: the same of a sample by itself and in a batch; None where that cannot be compared.
        digest: hash of the plan of the first batch.
    """

    learns: bool
    gradient: float | None
    spread: float
    repeated: float
    alone: float | None
    digest: str


def gradient(subject: Subject) -> Section:
    """What the task's loss tells each router, and whether a plan is a function of its sample alone."""
    batch = _few(next(iter(subject.batches()))[1])
    first, second, alone = RoutingTrace(), RoutingTrace(), RoutingTrace()
    once, twice = subject.predict(batch, first), subject.predict(batch, second)
    subject.predict({key: value[-1:] for key, value in batch.items()}, alone)
    gradients = _gradients(subject, batch)
    found = {
        name: Checked(
            isinstance(first.routers[i], AnyRouter) or gradients[i] is not None,
            gradients[i],
            _spread(first[i]),
            _difference(first[i], second[i]),
            _alone(first[i], alone[i], len(once)),
            first[i].digest(),
        )
        for i, name in enumerate(layer_names(subject.model.model, first))
    }
    same = torch.allclose(once, twice, rtol=1e-4, atol=1e-5)
    return Section(
        "gradient",
        "Are the routers trained, and their plans reproducible?",
        "The gradient of the task's loss alone, without any balance term, on one batch in evaluation mode, "
        "over that of all other weights: a router without one can have learned nothing but balance. A gate "
        "that emits constants gives every row the same probabilities. Two passes over the batch show noise; "
        "one sample by itself and in the batch shows gates that look at their neighbours in the batch.",
        tuple(_findings(found, same)),
        (_table(found),) if found else (),
        data={"layers": {name: _numbers(layer) for name, layer in found.items()}, "answers_repeat": same},
    )


def _findings(found: Mapping[str, Checked], same: bool) -> list[Finding]:
    def where(wrong: Callable[[Checked], bool]) -> list[str]:
        return [name for name, layer in found.items() if wrong(layer)]

    noisy = where(lambda layer: layer.repeated > _OTHER)
    cases: tuple[tuple[Level, str, list[str], str], ...] = (
        (
            "fault",
            "untrained_router",
            where(lambda layer: layer.learns and (layer.gradient or 0) < _NO_GRADIENT),
            "The task gives no gradient to the router of {}: it is not trained.",
        ),
        (
            "fault",
            "constant_plan",
            where(lambda layer: layer.spread < _CONSTANT),
            "The gate of {} emits constants: its plan is the same whatever the input.",
        ),
        (
            "fault",
            "noise_at_evaluation",
            noisy,
            "Two passes over one batch give other plans in {}: there is noise at evaluation.",
        ),
        (
            "fault",
            "depends_on_batch",
            where(lambda layer: layer.repeated <= _OTHER < (layer.alone or 0)),
            "The plan of {} depends on the batch: a sample by itself is routed otherwise.",
        ),
        (
            "warning",
            "gate_by_rule",
            where(lambda layer: not layer.learns),
            "The gate of {} weighs by a rule what experts say, and has nothing to learn.",
        ),
    )
    said = [Finding(level, code, text.format(listed(names))) for level, code, names, text in cases if names]
    if not same and not noisy:
        text = "Two passes over one batch give other answers, though plans are the same."
        said.append(Finding("fault", "answers_differ", text))
    if found and not said:
        text = "Every router gets a gradient from the task, and plans are those of the sample alone."
        said.append(Finding("sound", "routers_sound", text))
    return said


def _table(found: Mapping[str, Checked]) -> Table:
    return Table(
        "gradient",
        "Checks of each router on one batch.",
        (
            "layer", "gradient over other weights'", "range of probabilities", "two passes differ",
            "alone and in a batch differ", "digest of the plan",
        ),
        tuple(
            (name, layer.gradient, layer.spread, layer.repeated, layer.alone, layer.digest[:12])
            for name, layer in found.items()
        ),
    )  # fmt: skip


def _numbers(layer: Checked) -> dict[str, Any]:
    """Without the digest, which turns on the rounding of the machine."""
    return {name: value for name, value in asdict(layer).items() if name != "digest"}


def _few(batch: Batch) -> Batch:
    """Some samples, at least two: one alone is put beside its mirror image."""
    if len(batch["image"]) > 1:
        return {key: value[:_SAMPLES] for key, value in batch.items()}
    return {key: torch.cat([v, v.flip(-1) if v.dim() >= 3 else v]) for key, v in batch.items()}


def _gradients(subject: Subject, batch: Batch) -> list[float | None]:
    """Of each plan's router, over the root mean square of the gradients of all other weights."""
    parameters = list(subject.model.model.parameters())
    trace = RoutingTrace()
    try:
        with torch.enable_grad():
            loss = total_loss(subject.task, subject.task.predict(batch, trace), batch)
        if loss.requires_grad:  # else no weight takes part in it
            loss.backward()
        routers = [_gate(router) for router in trace.routers]
        theirs = {id(parameter) for router in routers for parameter in router}
        scale = _rms([parameter for parameter in parameters if id(parameter) not in theirs])
        return [_rms(router) / max(scale, 1e-30) if router else None for router in routers]
    finally:
        for parameter in parameters:
            parameter.grad = None


def _gate(router: nn.Module | None) -> list[nn.Parameter]:
    """The weights of a router; of a layer that is its own gate those that are not its experts'."""
    if router is None:
        return []
    experts = {
        id(parameter)
        for bank in router.children()
        if isinstance(bank, ExpertBank)
        for parameter in bank.parameters()
    }
    return [parameter for parameter in router.parameters() if id(parameter) not in experts]


def _rms(parameters: Sequence[nn.Parameter]) -> float:
    """Root mean square of the gradients of the weights; biases count where there is nothing else."""
    counted = [p for p in parameters if p.dim() > 1] or parameters
    squares = [float(p.grad.double().square().sum()) for p in counted if p.grad is not None]
    return float((sum(squares) / max(sum(p.numel() for p in counted), 1)) ** 0.5)


def _spread(plan: RoutingPlan) -> float:
    p = plan.of_valid().probabilities
    return float((p.amax(0) - p.amin(0)).max()) if len(p) else 0.0


def _difference(a: RoutingPlan, b: RoutingPlan) -> float:
    if a.probabilities.shape != b.probabilities.shape:
        return 1.0
    apart = (a.probabilities - b.probabilities).abs()
    return max(1 - agreement(a, b), float(apart.max()) if apart.numel() else 0.0)


def _alone(batch: RoutingPlan, alone: RoutingPlan, samples: int) -> float | None:
    """How the last sample's plan differs, which is the first to find experts full."""
    if not batch.grid or batch.grid[0] != samples or batch.num_rows % samples:
        return None
    mine = torch.arange(batch.num_rows, device=batch.experts.device)[-(batch.num_rows // samples) :]
    return _difference(batch.spread(mine, (1, *batch.grid[1:])), alone)
