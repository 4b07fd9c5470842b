"""Drift: whether new samples look to a model, and are routed, as those did that its weights are for.

Each sample gives some statistics: mean and deviation of each band, the correlation of neighbouring bands, and
the share of its rows that each expert of each layer was given. Those of new samples are compared with the
reference on the card by Kolmogorov's and Smirnov's test, and all p values are corrected by Holm: in a run
without drift no more than the stated share of runs gives an alarm, however the statistics depend on another.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from geomoe.data.images import find_images, read_image, to_unit
from geomoe.data.labels import resized
from geomoe.data.leakage import outline
from geomoe.data.sample import Sample
from geomoe.errors import GeomoeError, expect
from geomoe.evaluation.statistics import holm
from geomoe.models import LoadedModel
from geomoe.models.drift import DriftReference
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.telemetry import load

__all__ = [
    "Drift",
    "Shift",
    "find_drift",
    "learn_drift",
    "new_samples",
    "place_of",
    "scenes_of",
    "statistics_of",
]

_SIDE = 128
"""Of the square in the middle of an image that is looked at, at most."""
_LEAST, _GROUP = 10, 5
"""Samples of a reference, and new ones of a group, at the least: of fewer nothing can be shown."""
_BANDS = 16
"""Bands of which each has statistics of its own; of more, means over as many neighbours are taken."""
_DATE = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_]?(0[1-9]|1[0-2])[-_]?(?:0[1-9]|[12]\d|3[01])(?!\d)")
_CELL = 10
"""Side of a region, degrees."""


@dataclass(frozen=True)
class Shift:
    """One statistic of one group of new samples, held against the reference.

    Attributes:
        group: ``all``, or the region or month.
        name: of the statistic.
        reference, found: its medians.
        p: that both are of one kind, corrected for all tests of the run.
    """

    group: str
    name: str
    reference: float
    found: float
    p: float


@dataclass(frozen=True)
class Drift:
    """What :func:`find_drift` found.

    Attributes:
        samples: new ones, by group.
        reference: how many samples the reference has.
        level: share of runs without drift that give an alarm, at most.
        shifts: every statistic of every group, the clearest first.
    """

    samples: dict[str, int]
    reference: int
    level: float
    shifts: tuple[Shift, ...]

    @property
    def alarms(self) -> tuple[Shift, ...]:
        """Those that are not of one kind with the reference."""
        return tuple(shift for shift in self.shifts if shift.p < self.level)

    @property
    def line(self) -> str:
        """All of it in a line."""
        rate = f"at most {self.level:g} of runs without drift give an alarm"
        of = f"{self.samples['all']} samples against {self.reference}, {len(self.shifts)} tests, {rate}"
        if not self.alarms:
            return f"no drift: {of}"
        first = self.alarms[0]
        where = "" if first.group == "all" else f" in {first.group}"
        more = f", and {len(self.alarms) - 1} more" if len(self.alarms) > 1 else ""
        moved = f"{first.name}{where} {first.reference:.4g} -> {first.found:.4g} (p {first.p:.1g})"
        return f"DRIFT: {moved}{more}; {of}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "drift": bool(self.alarms), "line": self.line}


def statistics_of(model: LoadedModel, sample: Mapping[str, Tensor], side: int | None) -> dict[str, float]:
    """The statistics of a sample, by name.

    Args:
        model: that routes it, if it routes.
        sample: with ``image`` ``[C, H, W]``, and ``valid`` ``[H, W]`` for a model that is told.
        side: of the square in its middle that is looked at; None for all of it.
    """
    image, valid = to_unit(sample["image"]), sample.get("valid")
    if side is not None:
        y, x = (max(size - side, 0) // 2 for size in image.shape[1:])
        image = image[:, y : y + side, x : x + side]
        valid = None if valid is None else valid[y : y + side, x : x + side]
    told = {} if valid is None else {"valid": valid[None]}
    with torch.inference_mode():
        model.model.eval()(image[None].contiguous(), trace=(trace := RoutingTrace()), **told)
    pixels = image.flatten(1) if valid is None else image[:, valid]
    found: dict[str, float] = {}
    if pixels.numel():
        groups = pixels.tensor_split(min(_BANDS, len(pixels)))
        bands = torch.stack([group.mean(0) for group in groups]).double()
        for number, band in enumerate(bands, 1):
            found[f"band {number} mean"] = float(band.mean())
            found[f"band {number} deviation"] = float(band.std(correction=0))
        for number, (one, other) in enumerate(pairwise(bands), 1):
            both = torch.stack([one, other])
            flat = float(both.std(1, correction=0).min()) < 1e-9
            found[f"bands {number} and {number + 1} correlation"] = (
                0.0 if flat else float(both.corrcoef()[0, 1])
            )
    for layer, plan in enumerate(trace, 1):
        for expert, share in enumerate(load(plan.of_valid()).tolist(), 1):
            found[f"layer {layer} expert {expert}"] = share
    return found


def learn_drift(
    model: LoadedModel, samples: Sequence[tuple[str, Sample]], data: str
) -> DriftReference | None:
    """The reference of samples that were not trained on; None where they are too few to tell drift by."""
    if len(samples) < _LEAST:
        return None
    side = None
    if model.contract.tiling is not None:
        side = min(_SIDE, *(min(sample["image"].shape[1:]) for _, sample in samples))
    rows = [statistics_of(model, sample, side) for _, sample in samples]
    names = tuple(rows[0])
    values = [[row.get(name, 0.0) for name in names] for row in rows if row]
    return DriftReference(names, torch.tensor(values, dtype=torch.float64), side, data)


def find_drift(
    model: LoadedModel,
    samples: Iterator[tuple[str, Mapping[str, Tensor]]],
    groups: Callable[[str], Sequence[str]] = lambda name: (),
    *,
    level: float = 0.01,
    progress: Callable[[], None] = lambda: None,
) -> Drift:
    """Compare new samples with the reference on a model's card.

    Args:
        model: whose card has one, as ``geomoe calibrate`` writes it.
        samples: new ones, each with its name; read one by one and forgotten.
        groups: to which regions and months a name belongs; those with five samples or more are compared too.
        level: share of runs without drift that may give an alarm.
        progress: called after each sample.

    Raises:
        GeomoeError: a card without a reference, or fewer than five samples.
    """
    expect(0 < level < 1, "level", level, "a share of runs, such as 0.01")
    if not model.card.drift:
        raise GeomoeError(
            f"the card of {model.name} has no reference to tell drift by; write one by 'geomoe calibrate', "
            f"with {_LEAST} held-out samples or more"
        )
    reference = DriftReference.from_card(model.card.drift)
    rows: dict[str, list[list[float]]] = {"all": []}
    for name, sample in samples:
        found = statistics_of(model, sample, reference.side)
        if found and set(found) != set(reference.names):
            raise GeomoeError(
                f"{name}: the reference on the card is of other bands or layers; calibrate anew"
            )
        row = [found[of] for of in reference.names] if found else []
        for group in ("all", *groups(name)) if row else ():
            rows.setdefault(group, []).append(row)
        progress()
    if len(rows["all"]) < _GROUP:
        raise GeomoeError(f"{len(rows['all'])} samples are too few to tell drift by; give {_GROUP} or more")
    compared = {group: np.array(some) for group, some in rows.items() if len(some) >= _GROUP}
    shifts = shifts_of(compared, reference)
    return Drift({group: len(some) for group, some in compared.items()}, len(reference.values), level, shifts)


def shifts_of(groups: Mapping[str, NDArray[np.float64]], reference: DriftReference) -> tuple[Shift, ...]:
    """Every statistic of every group ``[N, S]``, held against the reference; the clearest first."""
    old = reference.values.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of scipy, that p is the asymptotic one
        raw = [
            (group, i, float(stats.ks_2samp(old[:, i], new[:, i]).pvalue))
            for group, new in groups.items()
            for i in range(len(reference.names))
        ]
    found = [
        Shift(
            group, reference.names[i], float(np.median(old[:, i])), float(np.median(groups[group][:, i])), p
        )
        for (group, i, _), p in zip(raw, holm([p for *_, p in raw]), strict=True)
    ]
    return tuple(sorted(found, key=lambda shift: shift.p))


def new_samples(model: LoadedModel, paths: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Images whose truth nobody knows, as the model takes them: one by one, each by its path.

    Raises:
        GeomoeError: weights that take values as they are, or an image that cannot be read.
    """
    if model.card.radiometry != "unit":
        raise GeomoeError(f"{model.name} takes values as they are; give its data by --split")
    size = model.card.recipe.get("size") if model.contract.tiling is None else None
    for path in paths:
        image = read_image(path, model.contract.bands)
        yield str(path), {"image": image if size is None else resized(image, size)}


def place_of(path: Path) -> tuple[str, ...]:
    """Region and month of a file, where its georeference and its name or tags tell them.

    A region is a cell of ten degrees, such as ``40N 120W`` by its corner nearest to the origin.
    """
    known = []
    if (polygon := outline(path)) is not None:
        west, south = np.min(polygon["coordinates"][0], 0)
        east, north = np.max(polygon["coordinates"][0], 0)
        known.append(f"region {_corner(fmean((south, north)), 'NS')} {_corner(fmean((west, east)), 'EW')}")
    if (date := _DATE.search(path.stem)) is not None:
        known.append(f"month {date[1]}-{date[2]}")
    elif polygon is not None and (taken := _acquired(path)) is not None:
        known.append(f"month {taken[:7]}")
    return tuple(known)


def _corner(degrees: float, letters: str) -> str:
    return f"{int(abs(degrees) // _CELL) * _CELL}{letters[degrees < 0]}"


def _acquired(path: Path) -> str | None:
    from geomoe.raster.read.scene import open_file

    with suppress(GeomoeError), open_file(path) as scene:
        return scene.acquired
    return None


def scenes_of(folder: Path) -> list[Path]:
    """The images of a folder, or the one file that is given."""
    return [folder] if folder.is_file() else find_images(folder)
