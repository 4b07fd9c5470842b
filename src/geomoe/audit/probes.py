"""What each expert is for: how the rows that it is given differ from the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from geomoe.audit.favourites import Favourites
from geomoe.audit.features import FEATURES, WINDOW, image_planes, row_features
from geomoe.audit.layers import layer_names
from geomoe.audit.rows import Cells, affordable, blocks_a_side, clustered_by, gate_shares, multiple_of
from geomoe.audit.section import Figure, Finding, Section, Table
from geomoe.audit.subject import Subject
from geomoe.moe.plan import RoutingTrace

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["USED", "Sums", "probes", "standardised_difference"]

_DRAWS = 1000
_MOST = 10.0
_SMALL = 0.2
"""Cohen's small effect: where no expert's rows differ by more, experts are said to be given alike rows."""
USED = 0.01
"""Of an even share of the rows, below which an expert counts as unused."""
_TELLING = 4
"""Clusters of which fewer give no interval."""
_LAYERS = 3
"""Whose favourites are shown."""


@dataclass
class Sums:
    """Weight, sum and sum of squares of every feature by cluster, of each expert's rows and of all."""

    given: dict[int, NDArray[np.float64]] = field(default_factory=dict)  # [3, E, F]
    total: dict[int, NDArray[np.float64]] = field(default_factory=dict)  # [3, F]
    use: NDArray[np.float64] | float = 0.0

    def add(self, values: Tensor, known: Tensor, share: Tensor, clusters: Tensor) -> None:
        """Rows ``[N, F]``, where they are known ``[N, F]``, experts' shares ``[N, E]``, clusters ``[N]``."""
        moments = torch.stack([known, values * known, values**2 * known]).double()  # [3, N, F]
        share = share.double()
        self.use = self.use + share.sum(0).numpy()
        for cluster in clusters.unique().tolist():
            mine = clusters == cluster
            given = torch.einsum("ne,mnf->mef", share[mine], moments[:, mine]).numpy()
            total = torch.einsum("n,mnf->mf", share[mine].sum(1), moments[:, mine]).numpy()
            self.given[cluster] = self.given.get(cluster, 0.0) + given
            self.total[cluster] = self.total.get(cluster, 0.0) + total


def standardised_difference(given: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of a feature over an expert's rows less that over the others, in pooled standard deviations.

    Cohen's d, with weighted rows; nan where one of the two has none, 0 where nothing varies, at most 10: so
    much where neither varies by itself.

    Args:
        given: ``[..., 3, E, F]``, weight, sum and sum of squares of the expert's rows.
        total: ``[..., 3, F]``, the same of all rows.
    """
    weight, one, two = np.moveaxis(given, -3, 0)
    others = total[..., :, None, :] - given
    weight_o, one_o, two_o = np.moveaxis(others, -3, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, mean_o = one / weight, one_o / weight_o
        inside = np.maximum(two - weight * mean**2, 0) + np.maximum(two_o - weight_o * mean_o**2, 0)
        apart = mean - mean_o
        pooled = np.sqrt(inside / (weight + weight_o))
        scale = np.abs(total[..., 1, None, :] / total[..., 0, None, :])
        nothing = (weight <= 1e-9) | (weight_o <= 1e-9)
        d = np.where(np.abs(apart) <= 1e-9 * scale, 0.0, np.clip(apart / pooled, -_MOST, _MOST))
    return np.where(nothing, np.nan, d)


@dataclass(frozen=True)
class _Effects:
    """Standardised differences ``[E, F]`` with ends of 95 % intervals, and experts' shares of rows.

    Ends are nan where nothing varies, or too few samples or blocks tell.
    ``surely`` has the nearer end to 0 of intervals that hold for all of the layer together, 0 where they
    cover it.
    """

    d: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    surely: NDArray[np.float64]
    use: NDArray[np.float64]


def _effects(sums: Sums, seed: int) -> _Effects:
    given, total = (np.stack(list(of.values())) for of in (sums.given, sums.total))
    d = standardised_difference(given.sum(0), total.sum(0))
    use = np.asarray(sums.use / np.maximum(np.sum(sums.use), 1e-12))
    if len(given) < 2:
        unknown = np.full_like(d, np.nan)
        return _Effects(d, unknown, unknown, np.zeros_like(d), use)
    times = np.random.default_rng(seed).multinomial(len(given), np.full(len(given), 1 / len(given)), _DRAWS)
    drawn = standardised_difference(
        np.einsum("ds,smef->dmef", times, given), np.einsum("ds,smf->dmf", times, total)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        there = ~np.isnan(drawn)
        number = there.sum(0)
        off = np.where(there, drawn - np.where(there, drawn, 0).sum(0) / number, 0)
        spread = np.where(number > 1, np.sqrt((off**2).sum(0) / (number - 1)), np.nan)
        spread = np.where(spread > 0, spread * _student(total), np.nan)
        low, high = d - 1.96 * spread, d + 1.96 * spread
        t = np.where(spread > 0, np.abs(drawn - d) / spread, 0.0)
        worst = np.quantile(np.nanmax(np.nan_to_num(t).reshape(len(t), -1), 1), 0.95)
        surely = np.sign(d) * np.maximum(np.abs(d) - worst * spread, 0)
    return _Effects(d, low, high, np.nan_to_num(surely), use)


def _student(total: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[F]`` by how much Student's quantile is beyond the normal one; nan where too few clusters tell.

    Of a rare class the clusters that have it tell, of a common one those that lack it: a few of them decide
    the difference, however many clusters there are.

    Args:
        total: ``[S, 3, F]``, weight, sum and sum of squares of the rows of each cluster.
    """
    weight, one, _ = np.moveaxis(total, 1, 0)
    known = weight > 0
    means = one / np.where(known, weight, 1)
    above = known & (means > np.where(known, means, np.inf).min(0))
    below = known & (means < np.where(known, means, -np.inf).max(0))
    telling = np.minimum(above.sum(0), below.sum(0)) + 1
    number = np.maximum(known.sum(0), 2)
    far = stats.t.ppf(0.975, np.maximum(telling - 1, 1)) / 1.96 * np.sqrt(number / (number - 1))
    return np.where(telling < _TELLING, np.nan, far)


@dataclass
class _Layer:
    sums: Sums = field(default_factory=Sums)
    favourites: Favourites = field(default_factory=Favourites)


def probes(subject: Subject) -> Section:
    """How features and classes differ between each expert's rows and the others, and its favourites."""
    subject = affordable(subject, 1, least=32)
    classes = [name for output in subject.model.contract.outputs.values() for name in output.classes]
    side, multiple, first = blocks_a_side(subject), multiple_of(subject), 0
    layers: dict[str, _Layer] = {}
    left_out: set[str] = set()
    for names, batch in subject.batches():
        trace = RoutingTrace()
        subject.answer(batch, trace)
        planes = image_planes(batch, len(classes))
        for name, plan in zip(layer_names(subject.model.model, trace), trace, strict=True):
            cells = Cells.of(plan, batch["image"], multiple)
            if cells is None or plan.num_experts < 2:
                left_out.add(name)
                continue
            values, known = row_features(cells, planes)
            layer = layers.setdefault(name, _Layer())
            clusters = cells.clusters(first, side)
            layer.sums.add(values, known, gate_shares(plan), clusters)
            layer.favourites.add(cells, batch, clusters)
        first += len(names)
    effects = {name: _effects(layer.sums, subject.seed) for name, layer in layers.items()}
    names = [*FEATURES, *(classes if next(iter(effects.values()), None) is not None else ())]
    with_classes = bool(effects) and next(iter(effects.values())).d.shape[1] > len(FEATURES)
    shown_layers = _spread(list(layers), _LAYERS)
    return Section(
        "probes",
        "What is each expert for?",
        "Each row counts for an expert by its share of the row's gates. A difference is the mean of a "
        "feature over an expert's rows less that over all others, in units of their pooled standard "
        "deviation (Cohen's d: 0.2 is small, 0.8 large). Features are of the image, averaged over the "
        f"square of pixels that a row stands for: {'; '.join(_MEANING)}. Intervals are of 95 %, from "
        f"{_DRAWS} bootstrap draws of {clustered_by(subject)} and Student's quantile; where fewer than "
        f"{_TELLING - 1} of them have a class, or lack it, there is none."
        + (_said(left_out) if left_out else ""),
        tuple(_findings(effects, names)),
        (
            *((_feature_table(effects),) if effects else ()),
            *((_class_table(effects, classes),) if with_classes else ()),
        ),
        (
            *((_heat(effects, names),) if effects else ()),
            *(_favourites(name, number, layers[name].favourites) for number, name in enumerate(shown_layers)),
        ),
        {name: _numbers(each, names) for name, each in effects.items()},
    )


_MEANING = (
    "brightness (mean over bands)",
    f"contrast (standard deviation of brightness in {WINDOW} x {WINDOW} pixels)",
    "edge strength (Sobel)",
    "spatial frequency (the energy of the Laplacian over that of the gradient, as radians a pixel)",
)


def _said(left_out: set[str]) -> str:
    return f" Left out (rows are no squares of the image, or one expert): {', '.join(sorted(left_out))}."


def _spread(names: Sequence[str], most: int) -> list[str]:
    """The first, the last, and some between."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]


def _findings(effects: dict[str, _Effects], names: Sequence[str]) -> list[Finding]:
    if not effects:
        return [
            Finding(
                "note", "no_probes", "No layer's rows are squares of the image, so there is nothing to probe."
            )
        ]
    best: tuple[float, str, int, int] | None = None
    for layer, each in effects.items():
        # What hardly anybody is given differs by much and tells nothing.
        used = each.use >= USED / len(each.use)
        sizes = np.abs(each.surely) * used[:, None]
        expert, feature = divmod(int(np.argmax(sizes)), sizes.shape[1])
        size = float(sizes[expert, feature])
        if best is None or size > best[0]:
            best = size, layer, expert, feature
    assert best is not None
    size, layer, expert, feature = best
    if size <= 0:
        return [
            Finding(
                "warning", "experts_alike",
                "No expert's rows differ surely from the others in any feature or class that was looked at.",
            )
        ]  # fmt: skip
    each = effects[layer]
    d, low, high = (float(of[expert, feature]) for of in (each.d, each.low, each.high))
    what = (
        f"{'of more' if d > 0 else 'of less'} {names[feature]}"
        if feature < len(FEATURES)
        else (f"{'more' if d > 0 else 'less'} often {names[feature]}")
    )
    text = (
        f"The clearest difference: rows of expert {expert} in {layer} are {what} than the others "
        f"(d = {d:.2f}, {low:.2f} to {high:.2f})."
    )
    if size < _SMALL:
        return [Finding("note", "experts_nearly_alike", f"{text} No difference is surely above {_SMALL}.")]
    return [Finding("note", "experts_differ", text)]


def _cell(each: _Effects, expert: int, feature: int) -> str | None:
    d, low, high = (float(of[expert, feature]) for of in (each.d, each.low, each.high))
    if math.isnan(d):
        return None
    return f"{d:.2f}" if math.isnan(low) else f"{d:.2f} ({low:.2f} to {high:.2f})"


def _feature_table(effects: dict[str, _Effects]) -> Table:
    return Table(
        "probes_features",
        "How rows of each expert differ from the others: standardised differences with 95 % intervals.",
        ("layer", "expert", "share of rows", *FEATURES),
        tuple(
            (layer, e, float(each.use[e]), *(_cell(each, e, f) for f in range(len(FEATURES))))
            for layer, each in effects.items()
            for e in range(len(each.d))
        ),
    )


def _class_table(effects: dict[str, _Effects], classes: Sequence[str]) -> Table:
    rows = []
    for layer, each in effects.items():
        for e in range(len(each.d)):
            of_classes = each.d[e, len(FEATURES) :]
            if np.isnan(of_classes).all():
                continue
            ends = [int(np.nanargmax(of_classes)), int(np.nanargmin(of_classes))]
            rows.append(
                (layer, e, *(x for c in ends for x in (classes[c], _cell(each, e, len(FEATURES) + c))))
            )
    return Table(
        "probes_classes",
        "The class that each expert is given more than others most clearly, and the one less: differences "
        "of the share of rows that are of it, standardised, with 95 % intervals.",
        ("layer", "expert", "more", "difference", "less", "difference "),
        tuple(rows),
    )


def _numbers(each: _Effects, names: Sequence[str]) -> dict[str, Any]:
    def plain(values: NDArray[np.float64]) -> list[list[float | None]]:
        return [[None if math.isnan(v) else v for v in row] for row in values.tolist()]

    return {
        "features": list(names[: each.d.shape[1]]),
        "share_of_rows": each.use.tolist(),
        "difference": plain(each.d),
        "low": plain(each.low),
        "high": plain(each.high),
    }


def _heat(effects: dict[str, _Effects], names: Sequence[str]) -> Figure:
    return Figure(
        "probes_differences",
        "How the rows of each expert differ from the others, standardised: red is more, blue less, and "
        "white no difference; grey where an expert has no rows. Dots: surely other than 0, all of a layer "
        "considered.",
        lambda drawing: _draw_heat(drawing, effects, names),
    )


def _draw_heat(drawing: Drawing, effects: dict[str, _Effects], names: Sequence[str]) -> None:
    from matplotlib import colormaps

    columns = next(iter(effects.values())).d.shape[1]
    experts = [len(each.d) for each in effects.values()]
    drawing.set_size_inches(2.6 + 0.34 * columns, 1.4 + sum(0.17 * n + 0.28 for n in experts))
    drawing.set_layout_engine("constrained")
    axes = drawing.subplots(len(effects), 1, squeeze=False, gridspec_kw={"height_ratios": experts})
    colour = colormaps["RdBu_r"].with_extremes(bad="0.85")
    for place, (layer, each) in zip(axes[:, 0], effects.items(), strict=True):
        drawn = place.imshow(each.d, cmap=colour, vmin=-1.5, vmax=1.5, aspect="auto")
        sure = np.argwhere(each.surely != 0)
        place.plot(sure[:, 1], sure[:, 0], ".", color="black", markersize=2)
        place.set_title(layer, fontsize=7, loc="left")
        place.set_yticks(range(len(each.d)))
        place.tick_params(labelsize=6)
        place.set_xticks([])
    axes[-1, 0].set_xticks(range(columns), names[:columns], rotation=45, ha="right", fontsize=7)
    drawing.supylabel("expert", fontsize=8)
    bar = drawing.colorbar(drawn, ax=axes, shrink=0.5, extend="both")
    bar.set_label("standardised difference", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _favourites(name: str, number: int, favourites: Favourites) -> Figure:
    return Figure(
        f"probes_favourites_{number}",
        f"The places that experts of {name} were given most surely, framed: surest first, one "
        "of each sample (or block of it), and the router's probability.",
        favourites.draw,
    )
