"""What routing and facts of the samples know of each other: class, sensor, region, date."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import entr
from torch import Tensor

from geomoe.audit.facts import facts_of
from geomoe.audit.layers import layer_names
from geomoe.audit.section import Figure, Finding, Section, Table
from geomoe.audit.subject import Subject
from geomoe.evaluation.statistics import holm
from geomoe.moe.plan import RoutingPlan, RoutingTrace

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["Joint", "dependence", "mutual_information", "of_samples"]

_DRAWS, _SHIFTS = 999, 199
_ROWS = 4096
"""Rows of a sample that are looked at for what its pixels are."""
_LEVEL = 0.05
_COPIES = 0.8
"""Share of what routing could know of a fact, or the fact of routing, from which one copies the other."""
_PIXELS = "class of the pixels"

Array = NDArray[np.float64]


def mutual_information(joint: Array) -> Array:
    """Of joint counts ``[..., F, E]``, in bits, ``[...]``; 0 of no counts."""
    total = joint.sum((-2, -1), keepdims=True)
    p = joint / np.where(total > 0, total, 1)
    both, rows, columns = (entr(x).sum(-1) for x in (p.reshape(*p.shape[:-2], -1), p.sum(-1), p.sum(-2)))
    found: Array = (rows + columns - both) / math.log(2)
    return np.maximum(found, 0)


@dataclass(frozen=True)
class Joint:
    """Counts of a fact's values and a layer's experts, as found and as chance has them.

    Attributes:
        values: of the fact.
        found: ``[F, E]``.
        drawn: ``[draws]``, the mutual information in bits where facts were exchanged between samples.
    """

    values: list[str]
    found: Array
    drawn: Array

    @property
    def information(self) -> float:
        """Mutual information in bits, less what chance has on average; 0 at least."""
        return max(float(mutual_information(self.found) - self.drawn.mean()), 0.0)

    @property
    def of_fact(self) -> float:
        """Share of the fact's entropy that the choice of expert tells."""
        return self.information / max(_entropy(self.found.sum(1)), 1e-12)

    @property
    def of_routing(self) -> float:
        """Share of the entropy of the choice of expert that the fact tells."""
        return self.information / max(_entropy(self.found.sum(0)), 1e-12)

    @property
    def copied(self) -> float:
        """Share of the most that they could know of each other."""
        return min(max(self.of_fact, self.of_routing), 1.0)

    @property
    def purity(self) -> float:
        """How often the fact is guessed from the expert alone."""
        return float(self.found.max(0).sum() / max(self.found.sum(), 1e-12))

    @property
    def blind(self) -> float:
        """How often it is guessed from nothing."""
        return float(self.found.sum(1).max() / max(self.found.sum(), 1e-12))


def _entropy(counts: Array) -> float:
    return float(entr(counts / max(counts.sum(), 1e-12)).sum() / math.log(2))


def of_samples(values: list[str | None], choices: Array, rng: np.random.Generator) -> Joint:
    """A fact of samples and a layer's ``choices`` ``[N, E]``; facts are exchanged between whole samples."""
    known = np.array([value is not None for value in values])
    names = sorted({value for value in values if value is not None})
    place = np.array([names.index(value) for value in values if value is not None])
    fact = np.eye(len(names))[place]  # [n, F]
    mine = choices[known]
    drawn = np.stack([fact[rng.permutation(len(fact))].T @ mine for _ in range(_DRAWS)])
    return Joint(names, fact.T @ mine, mutual_information(drawn))


def _of_pixels(subject: Subject, classes: list[str]) -> dict[str, Joint]:
    """The classes of pixels and the experts that they went to, by layer; classes are shifted over the image.

    Neighbours are alike in class and in expert: exchanged pixel by pixel, chance would be made too small. A
    shift that comes in again at the other side keeps both as they are, and takes what joins them.
    """
    rng = np.random.default_rng(subject.seed)
    found: dict[str, Array] = {}
    for _, batch in subject.batches():
        if "mask" not in batch:
            return {}
        trace = RoutingTrace()
        subject.predict(batch, trace)
        for name, plan in zip(layer_names(subject.model.model, trace), trace, strict=True):
            for one in range(len(batch["mask"])):
                pair = _places(plan, batch["mask"][one], one, len(batch["mask"]))
                if pair is not None:
                    counts = _shifted(*pair, plan.num_experts, len(classes), rng)
                    found[name] = found[name] + counts if name in found else counts
    return {name: Joint(classes, counts[0], mutual_information(counts[1:])) for name, counts in found.items()}


def _places(plan: RoutingPlan, mask: Tensor, one: int, samples: int) -> tuple[Array, Array] | None:
    """Main expert and class at the places of one sample's rows, ``[h, w]`` each, -1 where there is none."""
    if len(plan.grid) != 3 or plan.grid[0] != samples or plan.grid[1] * plan.grid[2] == 1:
        return None
    rows, columns = plan.grid[1:]
    step = math.ceil(math.sqrt(rows * columns / _ROWS))
    y, x = (
        (torch.arange(0, cells, step) * 2 + 1) * math.ceil(pixels / cells) // 2
        for cells, pixels in ((rows, mask.shape[0]), (columns, mask.shape[1]))
    )
    y, x = y[y < mask.shape[0]], x[x < mask.shape[1]]  # images are continued to whole windows
    expert = plan.main.view(samples, rows, columns)[one, ::step, ::step][: len(y), : len(x)]
    return expert.cpu().numpy(), mask[y][:, x].cpu().numpy()


def _shifted(expert: Array, label: Array, experts: int, classes: int, rng: np.random.Generator) -> Array:
    """``[1 + shifts, F, E]`` counts: as found, and for every shift of the classes."""
    made = []
    for shift in [(0, 0), *zip(*(rng.integers(n, size=_SHIFTS) for n in label.shape), strict=True)]:
        moved = np.roll(label, shift, (0, 1))
        there = (expert >= 0) & (moved >= 0)
        counts = np.bincount(moved[there] * experts + expert[there], minlength=classes * experts)
        made.append(counts.reshape(classes, experts))
    return np.stack(made).astype(np.float64)


def dependence(subject: Subject) -> Section:
    """Mutual information of experts with what is known of samples, against facts that were exchanged."""
    joints: dict[str, dict[str, Joint]] = {}
    layers = {name: torch.cat(tally.by_sample) for name, tally in subject.tallies.items() if tally.by_sample}
    for fact, values in facts_of(subject).items():
        joints[fact] = {
            # Every layer sees the same exchanges, so that their sum has a distribution.
            name: of_samples(values, choices.numpy(), np.random.default_rng(subject.seed))
            for name, choices in layers.items()
            if len(choices) == len(values)
        }
    classes = [name for output in subject.model.contract.outputs.values() for name in output.classes]
    if classes:
        joints[_PIXELS] = _of_pixels(subject, classes)
    joints = {fact: of for fact, of in joints.items() if of}
    raw = [_chance(of) for of in joints.values()]
    chances = dict(zip(joints, holm(raw), strict=True))
    return Section(
        "dependence",
        "What does the routing know of its samples?",
        "Mutual information of the expert that a row went to and a fact of its sample, less what it is on "
        f"average where facts are exchanged between whole samples ({_DRAWS} times). Classes of pixels are "
        f"shifted over their image instead ({_SHIFTS} times), for neighbours are alike. One p for each "
        "fact, of the sum over layers, corrected by Holm for the number of facts. Purity is how often the "
        "fact is guessed right from the expert alone.",
        tuple(_findings(joints, chances)),
        (_table(joints, chances),) if joints else (),
        (Figure("dependence", _CAPTION, lambda drawing: _draw(drawing, joints)),) if joints else (),
        {fact: _numbers(of, chances[fact]) for fact, of in joints.items()},
    )


_CAPTION = (
    "Share of each value's choices that fell on each expert, in the layer that depends most on the fact; "
    "rows that look alike mean that routing does not know the fact."
)


def _chance(of: Mapping[str, Joint]) -> float:
    found = sum(float(mutual_information(joint.found)) for joint in of.values())
    drawn = np.sum([joint.drawn for joint in of.values()], 0)
    return float((1 + (drawn >= found - 1e-12).sum()) / (1 + len(drawn)))


def _most(of: Mapping[str, Joint]) -> str:
    return max(of, key=lambda name: of[name].information)


def _findings(joints: Mapping[str, Mapping[str, Joint]], chances: Mapping[str, float]) -> list[Finding]:
    if not joints:
        said = "Nothing is known of the samples that tells them apart: dependence was not looked at."
        return [Finding("note", "no_facts", said)]
    found = []
    for fact, of in joints.items():
        layer = _most(of)
        joint, code = of[layer], fact.replace(" ", "_")
        knows = (
            f"{joint.information:.2f} bits, {joint.of_fact:.0%} of the {fact} and {joint.of_routing:.0%} of "
            f"the choice, p {chances[fact]:.2g}"
        )
        if chances[fact] >= _LEVEL:
            text = f"Routing is not shown to depend on {fact} (most in {layer}: {knows})."
            found.append(Finding("note", f"independent_of_{code}", text))
        elif joint.copied >= _COPIES and joint.information >= _LEAST:
            text = f"The router of {layer} copies the {fact}: {knows}."
            wanted = fact in ("class", _PIXELS)
            found.append(Finding("note" if wanted else "warning", f"copies_{code}", text))
        else:
            text = f"Routing depends on {fact}, most in {layer}: {knows}."
            found.append(Finding("note", f"depends_on_{code}", text))
    return sorted(found, key=lambda finding: finding.level != "warning")


_LEAST = 0.25
"""Bits that a router has to know of a fact to be said to copy it."""


def _table(joints: Mapping[str, Mapping[str, Joint]], chances: Mapping[str, float]) -> Table:
    rows = [
        (
            fact, len(joint.values), layer, joint.information, joint.of_fact, joint.of_routing, joint.purity,
            joint.blind, chances[fact],
        )
        for fact, of in joints.items()
        for layer, joint in of.items()
    ]  # fmt: skip
    columns = (
        "fact", "values", "layer", "information [bits]", "of the fact", "of the choice", "purity",
        "purity of a guess", "p of the fact",
    )  # fmt: skip
    return Table(
        "dependence", "What the choice of expert and facts tell of each other.", columns, tuple(rows)
    )


def _numbers(of: Mapping[str, Joint], chance: float) -> dict[str, Any]:
    return {
        "p": chance,
        "layers": {
            name: {
                "values": joint.values,
                "counts": joint.found.tolist(),
                "information_bits": joint.information,
                "of_fact": joint.of_fact,
                "of_choice": joint.of_routing,
                "purity": joint.purity,
                "purity_of_a_guess": joint.blind,
            }
            for name, joint in of.items()
        },
    }


def _draw(drawing: Drawing, joints: Mapping[str, Mapping[str, Joint]]) -> None:
    heights = [max(len(next(iter(of.values())).values), 3) for of in joints.values()]
    drawing.set_size_inches(6, sum(0.22 * height + 0.8 for height in heights))
    axes = drawing.subplots(len(joints), 1, squeeze=False, height_ratios=heights)
    for place, (fact, of) in zip(axes.flat, joints.items(), strict=True):
        layer = _most(of)
        shares = of[layer].found / np.maximum(of[layer].found.sum(1, keepdims=True), 1e-12)
        image = place.imshow(shares, vmin=0, aspect="auto", cmap="cividis")
        place.set_yticks(range(len(shares)), of[layer].values, fontsize=7)
        place.set_xticks(range(shares.shape[1]))
        place.set_xlabel("expert", fontsize=8)
        place.set_title(f"{fact}, {layer}", fontsize=8)
        drawing.colorbar(image, ax=place)
