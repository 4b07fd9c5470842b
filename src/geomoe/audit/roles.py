"""What each expert is for under several weights files, once experts are matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from geomoe.audit.features import FEATURES, Planes, row_features
from geomoe.audit.probes import USED, Sums, standardised_difference
from geomoe.audit.rows import Cells, gate_shares
from geomoe.audit.section import Cell

__all__ = ["Profiles", "Roles", "compare_roles"]


@dataclass
class Profiles:
    """How the rows of each expert of a layer differ from the others, gathered batch by batch."""

    sums: Sums = field(default_factory=Sums)

    def add(self, cells: Cells, planes: Planes) -> None:
        """The rows of a batch, and what is known of its pixels."""
        values, known = row_features(cells, planes)
        self.sums.add(values, known, gate_shares(cells.plan), torch.zeros(cells.plan.num_rows).long())

    @property
    def differences(self) -> NDArray[np.float64]:
        """``[E, F]`` as of :func:`standardised_difference`; nan of experts that are hardly used."""
        d = standardised_difference(self.sums.given[0], self.sums.total[0])
        use = np.asarray(self.sums.use)
        return np.where((use >= USED * use.mean())[:, None], d, np.nan)


@dataclass(frozen=True)
class Roles:
    """Roles of the experts of one layer.

    Attributes:
        mine: role of each expert and its standardised difference; None of one that is hardly used.
        theirs: of each other weights file, those of the experts that are matched with mine.
        alike: for each expert, under how many of the others its role is the same; None as above.
        correlation: of its profile with those of its matches, a mean over the others.
        chance: share of all pairs of experts, matched or not, that have one role.
    """

    mine: list[tuple[str, float] | None]
    theirs: list[list[tuple[str, float] | None]]
    alike: list[int | None]
    correlation: list[float | None]
    chance: float

    @property
    def share(self) -> float | None:
        """Of the used experts and the others, in how many cases the role is the same."""
        known = [n / len(self.theirs) for n in self.alike if n is not None]
        return fmean(known) if known else None

    def rows(self, layer: str) -> list[tuple[Cell, ...]]:
        """Of a table: layer, expert, its role, those of the others, how many agree, correlation."""
        return [
            (
                layer, e, _said(role), *(_said(of[e]) for of in self.theirs),
                None if (n := self.alike[e]) is None else f"{n} of {len(self.theirs)}", self.correlation[e],
            )
            for e, role in enumerate(self.mine)
        ]  # fmt: skip


def compare_roles(
    mine: NDArray[np.float64],
    others: Sequence[tuple[NDArray[np.float64], Sequence[int]]],
    names: Sequence[str],
) -> Roles:
    """Whether experts have the roles that their matches have.

    An expert's role is the class of which its rows are more often than the others' most clearly; where there
    are no classes, the feature in which they differ most.

    Args:
        mine: ``[E, F]`` standardised differences.
        others: the same of other weights, and the expert that is matched with each of mine; -1 for none.
        names: of the ``F`` features, :data:`geomoe.audit.features.FEATURES` first, then classes.
    """
    roles = [_role(d, names) for d in mine]
    theirs, matched, same = [], [], []
    for d, match in others:
        named = [_role(each, names) for each in d]
        theirs.append([named[m] if m >= 0 else None for m in match])
        matched.append([d[m] if m >= 0 else None for m in match])
        same += [a[0] == b[0] for a in roles if a for b in named if b]
    alike = [
        None if role is None else sum(of[e] is not None and of[e][0] == role[0] for of in theirs)  # type: ignore[index]
        for e, role in enumerate(roles)
    ]
    correlation = []
    for e, d in enumerate(mine):
        found = [r for of in matched if (r := _correlation(d, of[e])) is not None]
        correlation.append(fmean(found) if found else None)
    return Roles(roles, theirs, alike, correlation, fmean(same) if same else 0.0)


def _role(d: NDArray[np.float64], names: Sequence[str]) -> tuple[str, float] | None:
    classes = d[len(FEATURES) :]
    if np.isfinite(classes).any():
        place = len(FEATURES) + int(np.nanargmax(classes))
        return names[place], float(d[place])
    if not np.isfinite(d).any():
        return None
    place = int(np.nanargmax(np.abs(d)))
    return f"{'more' if d[place] > 0 else 'less'} {names[place]}", float(d[place])


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64] | None) -> float | None:
    """Pearson's, of what both know; None where one of the two does not vary."""
    if b is None:
        return None
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 3 or not a[known].std() or not b[known].std():
        return None
    return float(np.corrcoef(a[known], b[known])[0, 1])


def _said(role: tuple[str, float] | None) -> str | None:
    return None if role is None else f"{role[0]} ({role[1]:.2f})"
