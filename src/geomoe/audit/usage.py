"""Which experts are used, and how surely they are chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from geomoe.audit.layers import layer_names
from geomoe.audit.section import Figure, Finding, Section, Table
from geomoe.audit.subject import Subject
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.sort import count_choices
from geomoe.moe.telemetry import gini
from geomoe.printable import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["Usage", "usage"]

_ENOUGH = 20
"""Rows for each expert, from which an expert that none chose is called dead."""
_COLLAPSED = 0.95
"""Share of one expert's gates, from which a layer is called collapsed."""


@dataclass
class Usage:
    """Sums over the plans of one layer.

    Attributes:
        experts: E.
        top_k: choices of a row.
        rows: that were routed.
        choices: ``[E]``, carried out.
        gates: ``[E]``, sums of weights.
        belief: ``[E]``, sums of probabilities.
        row_entropy: sum over rows of the entropy of their probabilities, nats.
        confidence: sum over rows of the largest probability.
        dropped: choices that found their expert full.
    """

    experts: int
    top_k: int
    rows: int = 0
    choices: Tensor = field(default_factory=lambda: torch.zeros(()))
    gates: Tensor = field(default_factory=lambda: torch.zeros(()))
    belief: Tensor = field(default_factory=lambda: torch.zeros(()))
    row_entropy: float = 0.0
    confidence: float = 0.0
    dropped: int = 0

    def add(self, plan: RoutingPlan) -> None:
        """Count the valid rows of one more plan."""
        plan = plan.of_valid()
        p = plan.probabilities.double()
        self.rows += plan.num_rows
        self.choices = self.choices + count_choices(plan).double()
        self.gates = self.gates + plan.gates.double().sum(0)
        self.belief = self.belief + p.sum(0)
        self.row_entropy += float(torch.special.entr(p).sum())
        self.confidence += float(p.amax(1).sum()) if plan.num_rows else 0.0
        self.dropped += 0 if plan.dropped is None else int(plan.dropped.sum())

    @property
    def load(self) -> Tensor:
        """``[E]`` share of the choices."""
        return self.choices / self.choices.sum().clamp_min(1)

    @property
    def importance(self) -> Tensor:
        """``[E]`` share of the gates."""
        return self.gates / self.gates.sum().clamp_min(1e-12)

    @property
    def marginal_entropy(self) -> float:
        """Entropy of the mean belief over ln E: 1 where experts are wanted alike."""
        mean = self.belief / max(self.rows, 1)
        return float(torch.special.entr(mean).sum()) / math.log(max(self.experts, 2))

    @property
    def conditional_entropy(self) -> float:
        """Mean entropy of a row's belief over ln E: 0 where every row is sure."""
        return self.row_entropy / max(self.rows, 1) / math.log(max(self.experts, 2))

    @property
    def dead(self) -> list[int]:
        """Experts that no row was given."""
        return [e for e, count in enumerate(self.choices.tolist()) if not count]


def usage(subject: Subject) -> Section:
    """Load, importance, entropies and dead experts of every layer, over all samples."""
    layers: dict[str, Usage] = {}
    for _, batch in subject.batches():
        trace = RoutingTrace()
        subject.answer(batch, trace)
        for name, plan in zip(layer_names(subject.model.model, trace), trace, strict=True):
            layers.setdefault(name, Usage(plan.num_experts, plan.top_k)).add(plan)
    return Section(
        "usage",
        "Which experts are used?",
        "Plans of all samples, as carried out. Load is an expert's share of the choices, importance its share "
        "of the gates; CV is their standard deviation over their mean (0: even use). Entropies are over the "
        "logarithm of the number of experts: the marginal one, of the mean belief, is 1 where experts are "
        "wanted alike; the conditional one, the mean of the rows', is 0 where every row is sure. Their "
        "difference is what rows and experts know of each other.",
        tuple(_findings(layers)),
        (_figures(layers), _loads(layers)) if layers else (),
        (Figure("load", _CAPTION, lambda drawing: _draw(drawing, layers)),) if layers else (),
        {name: _numbers(layer) for name, layer in layers.items()},
    )


_CAPTION = "Share of the choices that fell on each expert, by layer; the dashed line is even use."


def _cv(share: Tensor) -> float:
    return float(share.std(unbiased=False) / share.mean().clamp_min(1e-12))


def _findings(layers: dict[str, Usage]) -> list[Finding]:
    if not layers:
        return [
            Finding("fault", "no_routing", "The model recorded no routing plan: there is nothing to audit.")
        ]
    found = []
    for name, layer in layers.items():
        most = float(layer.importance.max())
        if layer.dead and layer.rows >= _ENOUGH * layer.experts:
            dead = ", ".join(map(str, layer.dead))
            found.append(
                Finding(
                    "warning",
                    "dead_expert",
                    f"In {name} {counted(len(layer.dead), 'expert')} of {layer.experts} ({dead}) took part "
                    f"in none of {layer.rows} rows.",
                )
            )
        if most >= _COLLAPSED and layer.experts > 1:
            found.append(
                Finding(
                    "warning",
                    "collapsed",
                    f"In {name} expert {int(layer.importance.argmax())} has {most:.0%} of all gates.",
                )
            )
    if not found:
        text = f"Every expert takes part in {'the layer' if len(layers) == 1 else 'each layer'}."
        found.append(Finding("sound", "experts_used", text))
    return found


def _figures(layers: dict[str, Usage]) -> Table:
    return Table(
        "usage",
        "Use of experts by layer.",
        (
            "layer", "experts", "choices a row", "rows an expert", "load CV", "importance CV", "Gini",
            "marginal entropy", "conditional entropy", "confidence", "dead", "dropped",
        ),
        tuple(
            (
                name, layer.experts, float(layer.choices.sum()) / max(layer.rows, 1),
                float(layer.choices.mean()), _cv(layer.load), _cv(layer.importance), float(gini(layer.load)),
                layer.marginal_entropy, layer.conditional_entropy, layer.confidence / max(layer.rows, 1),
                len(layer.dead), layer.dropped / max(layer.dropped + float(layer.choices.sum()), 1),
            )
            for name, layer in layers.items()
        ),
    )  # fmt: skip


def _loads(layers: dict[str, Usage]) -> Table:
    most = max(layer.experts for layer in layers.values())
    return Table(
        "load",
        "Share of the choices that fell on each expert.",
        ("layer", *(f"expert {e}" for e in range(most))),
        tuple(
            (name, *layer.load.tolist(), *(None,) * (most - layer.experts)) for name, layer in layers.items()
        ),
    )


def _numbers(layer: Usage) -> dict[str, object]:
    return {
        "experts": layer.experts,
        "top_k": layer.top_k,
        "rows": layer.rows,
        "choices": [int(count) for count in layer.choices.tolist()],
        "load": layer.load.tolist(),
        "importance": layer.importance.tolist(),
        "load_cv": _cv(layer.load),
        "importance_cv": _cv(layer.importance),
        "gini": float(gini(layer.load)),
        "marginal_entropy": layer.marginal_entropy,
        "conditional_entropy": layer.conditional_entropy,
        "confidence": layer.confidence / max(layer.rows, 1),
        "dead": layer.dead,
        "dropped": layer.dropped,
    }


def _draw(drawing: Drawing, layers: dict[str, Usage]) -> None:
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    drawing.set_size_inches(2.6 * columns + 0.6, 1.9 * rows + 0.4)
    axes = drawing.subplots(rows, columns, squeeze=False)
    for place in axes.flat[len(layers) :]:
        place.set_axis_off()
    for place, (name, layer) in zip(axes.flat, layers.items(), strict=False):
        place.bar(range(layer.experts), layer.load.tolist())
        place.axhline(1 / layer.experts, color="0.3", linestyle="--", linewidth=0.8)
        place.set_title(name, fontsize=8)
        place.set_xticks(range(layer.experts))
        place.tick_params(labelsize=7)
    drawing.supxlabel("expert", fontsize=8)
    drawing.supylabel("share of choices", fontsize=8)
