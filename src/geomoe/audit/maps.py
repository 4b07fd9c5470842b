"""Which expert is where: maps beside images, and whether they lie where they should."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geomoe.audit.drawing import colours, picture
from geomoe.audit.features import image_features
from geomoe.audit.layers import layer_names
from geomoe.audit.rows import Cells, affordable, blocks_a_side, clustered_by, fewer, multiple_of
from geomoe.audit.section import Cell, Figure, Finding, Section, Table
from geomoe.audit.subject import Subject
from geomoe.moe.plan import RoutingTrace

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["explained", "maps", "shifts_of"]

_SAMPLES = 32
_SHOWN, _COLUMNS = 4, 6
_DRAWS = 1000
_LEAST = 6
"""Fewer parts than this say nothing of a shift."""


def shifts_of(side: int, height: int, width: int) -> list[tuple[int, int]]:
    """Shifts in pixels, down and across, that a map is tried at: none first, then steps each way.

    Of cells halves and wholes of a side; of pixels 1, 2, 4 and 8. None is more than a quarter of the
    image.
    """
    wanted = (1, 2, 4, 8) if side == 1 else (side // 2, side)
    steps = tuple(step for step in wanted if 0 < step <= min(height, width) // 4)
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    return [(0, 0), *((step * y, step * x) for step in steps for y, x in around)]


def explained(experts: Tensor, features: Tensor) -> Tensor:
    """How much of the variance of features a map explains: the mean over features of eta squared, 0 to 1.

    Args:
        experts: ``[n]`` int64, the expert of each place.
        features: ``[n, F]`` of the same places.
    """
    chosen = F.one_hot(experts).double()
    values = features.double() - features.double().mean(0)
    counts = chosen.sum(0).clamp_min(1)
    between = ((chosen.T @ values) ** 2 / counts[:, None]).sum(0)
    total = (values**2).sum(0)
    return (between / total.clamp_min(1e-12))[total > 1e-12].sum() / features.shape[1]


@dataclass
class _Shifted:
    """Of one layer: what its map explains of each part of the samples, by shift."""

    side: int
    shifts: list[tuple[int, int]]
    found: list[list[float]] = field(default_factory=list)

    @property
    def mean(self) -> NDArray[np.float64]:
        """``[shifts]``."""
        return np.asarray(np.mean(self.found, 0))

    def better(self, seed: int) -> tuple[tuple[int, int], float, float] | None:
        """The shift that explains surely more than none does, by how much at least, and on average.

        None if there is no such one. At 95 % for all shifts together, by bootstrap
        of the largest of their studentised differences.
        """
        more = np.asarray(self.found) - np.asarray(self.found)[:, :1]
        if len(more) < _LEAST or len(self.shifts) < 2:
            return None
        drawn = np.random.default_rng(seed).multinomial(len(more), np.full(len(more), 1 / len(more)), _DRAWS)
        means, spread = more.mean(0), more.std(0, ddof=1) / len(more) ** 0.5
        off = drawn @ more / len(more) - means
        t = np.divide(off, spread, out=np.zeros_like(off), where=spread > 0)
        least = means - np.quantile(t.max(1), 0.95) * spread
        best = int(np.argmax(means))
        return (self.shifts[best], float(least[best]), float(means[best])) if least[best] > 0 else None


@dataclass(frozen=True)
class _Map:
    """Of a sample: its gates ``[E]``, and of a layer of squares the expert of each pixel ``[H, W]``."""

    experts: NDArray[np.int64] | None
    gates: NDArray[np.float64]


def maps(subject: Subject) -> Section:
    """Maps of some samples, and where each layer's map explains most of the image when it is moved about."""
    some, multiple = fewer(affordable(subject, 2), _SAMPLES), multiple_of(subject)
    number = len(some.samples.samples)
    shown_at = set(np.linspace(0, number - 1, min(_SHOWN, number)).round().astype(int).tolist())
    shifted: dict[str, _Shifted] = {}
    groups: dict[str, tuple[int, ...]] = {}
    shown: list[tuple[str, NDArray[np.float32], dict[str, _Map]]] = []
    first = 0
    for names, batch in some.batches():
        trace = RoutingTrace()
        some.answer(batch, trace)
        features = image_features(batch["image"])
        valid = batch.get("valid")
        each: list[dict[str, _Map]] = [{} for _ in names]
        for name, plan in zip(layer_names(some.model.model, trace), trace, strict=True):
            cells = Cells.of(plan, batch["image"], multiple)
            if cells is None or plan.num_experts < 2:
                continue
            groups[name] = plan.group_sizes
            experts = cells.on_image(plan.main)  # [B, H, W]
            gates = plan.gates.detach().double().view(len(names), -1, plan.num_experts).mean(1)
            for i in range(len(names)):
                of_pixels = experts[i].numpy() if len(plan.grid) == 3 else None
                each[i][name] = _Map(of_pixels, gates[i].numpy())
            if len(plan.grid) == 3:
                moved = shifted.setdefault(
                    name, _Shifted(cells.side, shifts_of(cells.side, cells.height, cells.width))
                )
                moved.found += _explained(cells, experts, features, valid, moved.shifts, blocks_a_side(some))
        for i, name in enumerate(names):
            if first + i in shown_at:
                shown.append((name, picture(batch["image"][i]), each[i]))
        first += len(names)
    columns = _spread(list(groups), _COLUMNS)
    return Section(
        "maps",
        "Which expert is where?",
        "Each place has the colour of the expert that counts most there. A map that a model lays beside its "
        "image, by a wrong crop, padding or stride, looks fine and is wrong: so each layer's map is moved "
        f"over the image, by half and whole cells ({_SAMPLES} samples at most), and the share of the "
        f"variance of brightness, contrast, edge strength and spatial frequency that it explains (eta "
        f"squared, mean of the four) is compared with that where it lies. Over {clustered_by(some)}, at 95 "
        f"% for all shifts of a layer together.",
        tuple(_findings(shifted, subject.seed)),
        (_table(shifted, subject.seed),) if shifted else (),
        (
            *((_figure(shown, columns, groups),) if columns and shown else ()),
            *((_profile(shifted),) if any(len(s.found) >= _LEAST for s in shifted.values()) else ()),
        ),
        {
            name: {"side": s.side, "shifts": [list(at) for at in s.shifts], "explained": s.mean.tolist()}
            for name, s in shifted.items()
            if s.found
        },
    )


def _explained(
    cells: Cells,
    experts: Tensor,
    features: Tensor,
    valid: Tensor | None,
    shifts: list[tuple[int, int]],
    blocks: int,
) -> list[list[float]]:
    """What a map explains of each sample, or of each of its blocks, at every shift.

    All shifts look at the same cells, those inside by the largest shift; so no shift has more of the border.
    """
    reach = max(abs(step) for at in shifts for step in at)
    rows, columns = cells.grid
    side = cells.side
    skip = -(-reach // side)
    rows, columns = min(rows, cells.height // side), min(columns, cells.width // side)  # whole cells alone
    if rows <= 2 * skip or columns <= 2 * skip:
        return []
    inside = (slice(None), slice(skip, rows - skip), slice(skip, columns - skip))
    on_cells = cells.plan.main.view(len(experts), *cells.grid)[inside]
    known = features.new_ones(len(experts), 1, cells.height, cells.width)
    known = known if valid is None else valid[:, None].to(features.dtype)
    both = torch.cat([features * known, known], 1)
    top, bottom, left, right = skip * side, (rows - skip) * side, skip * side, (columns - skip) * side
    moved = []
    for y, x in shifts:
        cut = both[:, :, top + y : bottom + y, left + x : right + x]
        moved.append(F.avg_pool2d(cut, side) if side > 1 else cut)
    # A cell that is not whole at one of the shifts counts at none.
    whole = torch.stack([m[:, -1] > 0.999 for m in moved]).all(0) & (on_cells >= 0)
    found = []
    for sample in range(len(on_cells)):
        for box in _boxes(on_cells.shape[1:], blocks):
            there = whole[sample][box]
            if there.sum() < 8 or len(on_cells[sample][box][there].unique()) < 2:
                continue
            chosen = on_cells[sample][box][there]
            found.append(
                [float(explained(chosen, m[sample, :-1][:, box[0], box[1]][:, there].T)) for m in moved]
            )
    return found


def _boxes(shape: torch.Size, blocks: int) -> list[tuple[slice, slice]]:
    edges = [[n * i // blocks for i in range(blocks + 1)] for n in shape]
    down, across = ([slice(a, b) for a, b in pairwise(e)] for e in edges)
    return [(y, x) for y in down for x in across]


def _spread(names: list[str], most: int) -> list[str]:
    if len(names) <= most:
        return names
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]


def _findings(shifted: dict[str, _Shifted], seed: int) -> list[Finding]:
    if not shifted:
        return [Finding("note", "no_maps", "No layer decides on squares of the image, so there are no maps.")]
    found = []
    for name, layer in shifted.items():
        if layer.found and (better := layer.better(seed)):
            (y, x), _, more = better
            found.append(
                Finding(
                    "fault",
                    "shifted_map",
                    f"The map of {name} explains more of the image when it is moved by {y} pixels down and "
                    f"{x} across ({layer.mean[0] + more:.3f} of the variance, {layer.mean[0]:.3f} where it "
                    f"lies): rows and pixels do not belong together.",
                )
            )
    tried = [name for name, layer in shifted.items() if len(layer.found) >= _LEAST]
    if not found and tried:
        text = "No map explains surely more of the image when it is moved."
        found.append(Finding("sound", "maps_in_place", text))
    elif not found:
        text = f"Fewer than {_LEAST} samples have maps that vary, too few to say whether they are in place."
        found.append(Finding("note", "maps_not_tried", text))
    return found


def _table(shifted: dict[str, _Shifted], seed: int) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, layer in shifted.items():
        if len(layer.found) < _LEAST:
            rows.append((name, layer.side, len(layer.found), None, None, None))
            continue
        best = int(np.argmax(layer.mean))
        y, x = layer.shifts[best]
        rows.append(
            (name, layer.side, len(layer.found), float(layer.mean[0]), f"{y}, {x}", float(layer.mean[best]))
        )
    return Table(
        "maps_shifts",
        "Share of the variance of image features that maps explain where they lie, and at the shift (pixels "
        "down, across) where they explain most.",
        ("layer", "side of a cell, pixels", "parts", "in place", "best shift", "there"),
        tuple(rows),
    )


def _figure(
    shown: list[tuple[str, NDArray[np.float32], dict[str, _Map]]],
    columns: list[str],
    groups: dict[str, tuple[int, ...]],
) -> Figure:
    whole = any(each.experts is None for _, _, of in shown for each in of.values())
    bars = " Layers that decide for whole samples have a bar of their gates." if whole else ""
    return Figure(
        "maps",
        "Samples, and for each place the expert that counts most there, by layer; colours are of one layer "
        "alone. "
        "Black: none." + bars,
        lambda drawing: _draw(drawing, shown, columns, groups),
    )


def _draw(
    drawing: Drawing,
    shown: list[tuple[str, NDArray[np.float32], dict[str, _Map]]],
    columns: list[str],
    groups: dict[str, tuple[int, ...]],
) -> None:
    from matplotlib.patches import Patch

    most = max((groups[name] for name in columns), key=sum)
    drawing.set_size_inches(1.5 * (len(columns) + 1), 1.5 * len(shown) + 0.65)
    drawing.set_layout_engine("constrained", h_pad=0.02, w_pad=0.02)
    axes = drawing.subplots(len(shown), len(columns) + 1, squeeze=False)
    for row, (sample, image, layers) in zip(axes, shown, strict=True):
        row[0].imshow(image, interpolation="nearest")
        row[0].set_title(sample if len(sample) < 26 else f"…{sample[-24:]}", fontsize=6)
        for place, name in zip(row[1:], columns, strict=True):
            of, tint = layers[name], colours(groups[name])
            if of.experts is None:
                place.bar(range(len(of.gates)), of.gates, color=tint)
                place.set_xticks(range(len(of.gates)))
                place.tick_params(labelsize=5)
                place.set_box_aspect(1)
            else:
                place.imshow(np.vstack([tint, np.zeros(3)])[of.experts], interpolation="nearest")
                place.set_axis_off()
            place.set_title(name, fontsize=6)
        row[0].set_axis_off()
    tint = colours(most)
    drawing.legend(
        handles=[Patch(color=tuple(tint[e]), label=f"expert {e}") for e in range(sum(most))],
        loc="outside lower center",
        ncols=min(sum(most), 2 * (len(columns) + 1)),
        fontsize=6,
        frameon=False,
    )


def _profile(shifted: dict[str, _Shifted]) -> Figure:
    return Figure(
        "maps_profile",
        "What a map explains of image features when it is moved over the image, over what it explains in "
        "place: down (solid) and across (dashed). Of a map that lies where it should the peak is at 0.",
        lambda drawing: _draw_profile(drawing, shifted),
    )


def _draw_profile(drawing: Drawing, shifted: dict[str, _Shifted]) -> None:
    drawing.set_size_inches(5.2, 3.0)
    drawing.set_layout_engine("constrained")
    axes = drawing.subplots()
    tint = colours((7,))
    for number, (name, layer) in enumerate(shifted.items()):
        if len(layer.found) < _LEAST:
            continue
        for axis, line in ((0, "-"), (1, "--")):
            tried = zip(layer.shifts, layer.mean, strict=True)
            along = sorted((at[axis], value) for at, value in tried if not at[1 - axis])
            axes.plot(
                [at for at, _ in along],
                [v / max(float(layer.mean[0]), 1e-12) for _, v in along],
                line,
                color=tint[number % 7],
                marker=".",
                linewidth=1,
                markersize=4,
                label=name if axis == 0 else None,
            )
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_xlabel("shift, pixels", fontsize=8)
    axes.set_ylabel("explained, over in place", fontsize=8)
    axes.tick_params(labelsize=7)
    if axes.lines[:-1]:
        axes.legend(fontsize=6, frameon=False)
