"""What the model costs beside its dense twins."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from geomoe.audit.drawing import colours
from geomoe.audit.rows import fewer
from geomoe.audit.section import TIMINGS, Cell, Figure, Finding, Section, Table
from geomoe.audit.subject import Subject
from geomoe.errors import GeomoeError
from geomoe.evaluation.benchmark.cost import active_parameters
from geomoe.evaluation.hardware import hardware
from geomoe.evaluation.peak import peak_of
from geomoe.models.registry import build
from geomoe.models.twin import TWINS
from geomoe.models.weights import save
from geomoe.moe.flops import count_flops

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["cost"]

_TWINS = ("active", "parameters")
_ROUNDS, _WARM = 9, 2
_LONG = 2e10
"""Operations of a pass from which fewer rounds have to do."""
_FEW_ROUNDS = 5
_STEADY = 1.5
"""By which the quartiles of a network's times may differ, for times to be compared."""


@dataclass
class _Arm:
    """One network: what it costs to run on one sample."""

    model: nn.Module
    twin: str = ""
    parameters: int = 0
    active: int = 0
    gflop: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak_mb: float | None = None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        low, median, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, median, high


def cost(subject: Subject) -> Section:
    """Parameters, operations that ran, time and memory of one sample, beside dense twins."""
    _, batch = next(fewer(subject, 1).batches())
    x = batch["image"][:1]
    arms = {"the model": _Arm(subject.model.model)}
    without = []
    for twin in _TWINS:
        model = _twin(subject, twin)
        if model is None:
            without.append(TWINS[twin])
        else:
            arms[TWINS[twin]] = _Arm(model.eval(), twin)
    with torch.inference_mode():
        for arm in arms.values():
            arm.parameters = sum(p.numel() for p in arm.model.parameters())
            arm.active = active_parameters(arm.model, x)
            arm.gflop = count_flops(lambda model=arm.model: model(x)) / 1e9  # type: ignore[misc]
        rounds = _FEW_ROUNDS if arms["the model"].gflop * 1e9 > _LONG else _ROUNDS
        for number in range(_WARM + rounds):
            order = list(arms.values())
            for arm in order[number % len(order) :] + order[: number % len(order)]:
                began = time.perf_counter()
                arm.model(x)
                if number >= _WARM:
                    arm.seconds.append(time.perf_counter() - began)
    for arm in arms.values():
        arm.peak_mb = _peak(subject, arm, x)
    size = f"{x.shape[-1]} x {x.shape[-2]} pixels, {x.shape[1]} bands"
    missing = (
        f" The model has no option for: {', '.join(without)}; there is nothing to compare with."
        if without
        else ""
    )
    return Section(
        "cost",
        "What does it cost?",
        f"One sample of {size}, on {hardware()}. Active parameters are all but those of experts that a row "
        f"was not given, a mean over rows. GFLOP (a multiply and an add are two) are counted as they ran, "
        f"padding and gathered copies included. Time: {_WARM} passes to warm up, then {rounds} in which all "
        f"networks take turns; median and quartiles. Peak memory is of a process that does nothing else, "
        f"Python and libraries included. Dense twins are "
        "made of the same configuration, with random weights." + missing,
        tuple(_findings(arms, without)),
        (
            Table(
                "cost",
                f"Cost of one sample of {size}.",
                (
                    "network", "parameters", "active parameters", "GFLOP", "seconds, median",
                    "first quartile", "third quartile", "samples a second", "peak memory, MB",
                ),
                tuple(_row(name, arm) for name, arm in arms.items()),
            ),
        ),
        (
            Figure(
                "cost",
                "Cost of the model and its dense twins, over the model's: parameters, active parameters, "
                "operations that ran, time (with quartiles) and peak memory.",
                lambda drawing: _draw(drawing, arms),
            ),
        )
        if len(arms) > 1
        else (),
        {
            "size": list(x.shape),
            "networks": {
                name: {"parameters": arm.parameters, "active_parameters": arm.active, "gflop": arm.gflop}
                for name, arm in arms.items()
            },
            TIMINGS: {
                "device": hardware(),
                "networks": {
                    name: {"seconds": arm.seconds, "peak_mb": arm.peak_mb} for name, arm in arms.items()
                },
            },
            "no_twins": without,
        },
    )  # fmt: skip


def _twin(subject: Subject, twin: str) -> nn.Module | None:
    """A twin of the model with random weights; None where its configuration has no such option."""
    card = subject.model.card
    if "twin" not in card.config and not hasattr(getattr(subject.model.model, "config", None), "twin"):
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(subject.seed)
            return build(card.model, {**card.config, "twin": twin})
    except (GeomoeError, ValueError):
        return None


def _peak(subject: Subject, arm: _Arm, x: Tensor) -> float | None:
    """MB; None where the model was not read from a file."""
    size, device, path = max(x.shape[-2:]), torch.device("cpu"), subject.model.path
    if not arm.twin:
        return None if path is None else peak_of(path, size, device)
    card = subject.model.card
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "twin.safetensors"
        save(target, arm.model, replace(card, config={**card.config, "twin": arm.twin}, reference={}))
        return peak_of(target, size, device)


def _row(name: str, arm: _Arm) -> tuple[Cell, ...]:
    low, median, high = arm.quartiles
    return (
        name, arm.parameters, arm.active, arm.gflop, median, low, high, 1 / median, arm.peak_mb
    )  # fmt: skip


def _findings(arms: dict[str, _Arm], without: list[str]) -> list[Finding]:
    mine = arms["the model"]
    others = [(name, arm) for name, arm in arms.items() if arm is not mine]
    if not others:
        said = f"{mine.gflop:.2f} GFLOP and {mine.quartiles[1]:.3f} s a sample"
        return [Finding("note", "no_twin", f"{said}; the model has no dense twin to be compared with.")]
    found = []
    steady = all(high < _STEADY * low for low, _, high in (arm.quartiles for arm in arms.values()))
    for name, twin in others:
        time = f"takes {mine.quartiles[1] / twin.quartiles[1]:.2f} times as long"
        if not steady:
            time = "takes a time that cannot be told, for the machine was busy: quartiles are far apart"
        text = (
            f"Beside its {name} the model has {mine.parameters / twin.parameters:.2f} times the parameters, "
            f"{mine.active / twin.active:.2f} times the active ones, does {mine.gflop / twin.gflop:.2f} "
            f"times the operations and {time}."
        )
        found.append(Finding("note", "cost_of_routing", text))
    return found


def _draw(drawing: Drawing, arms: dict[str, _Arm]) -> None:
    drawing.set_size_inches(6.0, 3.0)
    drawing.set_layout_engine("constrained")
    axes, tint = drawing.subplots(), colours((7,))
    mine = arms["the model"]
    kinds = ("parameters", "active", "operations", "time", "memory")
    width = 0.8 / len(arms)
    for number, (name, arm) in enumerate(arms.items()):
        low, median, high = (q / mine.quartiles[1] for q in arm.quartiles)
        memory = np.nan if arm.peak_mb is None or not mine.peak_mb else arm.peak_mb / mine.peak_mb
        heights = [
            arm.parameters / mine.parameters,
            arm.active / mine.active,
            arm.gflop / mine.gflop,
            median,
            memory,
        ]
        at = np.arange(len(kinds)) + (number - (len(arms) - 1) / 2) * width
        axes.bar(at, heights, width, color=tint[number], label=name)
        axes.errorbar(at[3], median, [[median - low], [high - median]], color="black", linewidth=1)
    axes.axhline(1, color="0.5", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(kinds)), kinds, fontsize=8)
    axes.set_ylabel("over the model's", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False)
