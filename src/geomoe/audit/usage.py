"""Which experts are used, and how surely they are chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from geomoe.audit.layers import Tally
from geomoe.audit.section import Figure, Finding, Section, Table
from geomoe.audit.subject import Subject
from geomoe.moe.telemetry import gini
from geomoe.printable import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["usage"]

_ENOUGH = 20
"""Rows for each expert, from which an expert that hardly any chose is called dead."""
_COLLAPSED = 0.95
"""Share of one expert's gates, from which a layer is called collapsed."""


def usage(subject: Subject) -> Section:
    """Load, importance, entropies and dead experts of every layer, over all samples."""
    layers = subject.tallies
    return Section(
        "usage",
        "Which experts are used?",
        "Plans of all samples, as carried out. Load is an expert's share of the choices, importance its "
        "share of the gates; CV is their standard deviation over their mean (0: even use). Entropies are "
        "over the logarithm of the number of experts: the marginal one, of the mean belief, is 1 where "
        "experts are wanted alike; the conditional one, the mean of the rows', is 0 where every row is sure. "
        "Their difference is what rows and experts know of each other.",
        tuple(_findings(layers)),
        (_figures(layers), _loads(layers)) if layers else (),
        (Figure("load", _CAPTION, lambda drawing: _draw(drawing, layers)),) if layers else (),
        {name: _numbers(layer) for name, layer in layers.items()},
    )


_CAPTION = "Share of the choices that fell on each expert, by layer; the dashed line is even use."


def _cv(share: Tensor) -> float:
    return float(share.std(unbiased=False) / share.mean().clamp_min(1e-12))


def _findings(layers: dict[str, Tally]) -> list[Finding]:
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
                    f"In {name} {counted(len(layer.dead), 'expert')} of {layer.experts} ({dead}) had less "
                    f"than a hundredth of an even share of {layer.rows} rows.",
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
    few = [name for name, layer in layers.items() if layer.dead and layer.rows < _ENOUGH * layer.experts]
    if few:
        text = f"In {', '.join(few)} an expert had hardly a row; rows are too few to call it dead."
        found.append(Finding("note", "few_rows", text))
    if not found:
        text = f"Every expert takes part in {'the layer' if len(layers) == 1 else 'each layer'}."
        found.append(Finding("sound", "experts_used", text))
    return found


def _figures(layers: dict[str, Tally]) -> Table:
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


def _loads(layers: dict[str, Tally]) -> Table:
    most = max(layer.experts for layer in layers.values())
    return Table(
        "load",
        "Share of the choices that fell on each expert.",
        ("layer", *(f"expert {e}" for e in range(most))),
        tuple(
            (name, *layer.load.tolist(), *(None,) * (most - layer.experts)) for name, layer in layers.items()
        ),
    )


def _numbers(layer: Tally) -> dict[str, object]:
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


def _draw(drawing: Drawing, layers: dict[str, Tally]) -> None:
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    drawing.set_size_inches(2.6 * columns + 0.6, 1.9 * rows + 0.4)
    axes = drawing.subplots(rows, columns, squeeze=False, sharey=True)
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
