"""Is the mixture worth having? What a benchmark of twins says, which were trained alike."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np

from geomoe.audit.manifest import LARGEST
from geomoe.audit.rows import fewer
from geomoe.audit.section import Finding, Level, Section, Table
from geomoe.audit.subject import Subject
from geomoe.errors import GeomoeError
from geomoe.evaluation.benchmark.result import ALL
from geomoe.evaluation.benchmark.twins import ENSEMBLE
from geomoe.evaluation.statistics import Interval, mean_interval
from geomoe.files import read_small
from geomoe.metrics.measures import measure
from geomoe.printable import counted

__all__ = ["WORTH", "worth"]

WORTH = {"beats_twin": "sound", "not_shown_to_beat_twin": "warning", "twin_is_better": "warning"}
"""Codes of the first finding, which the verdict tells too, and their levels."""

_CALLED = {
    "active": "dense twin of equal active cost",
    "parameters": "dense twin of equal parameters",
    "gated": "gated dense twin",
    "frozen": "twin behind a frozen random router",
    ENSEMBLE: "ensemble of dense twins of the same budget",
}
_SAMPLES = 100
"""By which weights are known again."""
_ALIKE, _ROUNDING = 0.98, 5e-4

Scores = dict[str, dict[int, dict[str, float]]]
"""By arm, seed and sample."""


@dataclass(frozen=True)
class _Gain:
    """What the mixture gains over a twin, under seeds and on samples that both have."""

    arm: str
    mean: float
    interval: Interval
    seeds: int
    samples: int

    @property
    def known(self) -> bool:
        """Whether the interval has a width: one score of each tells nothing."""
        return self.seeds * self.samples > 1


@dataclass
class _Scored:
    """A table of scores in one metric."""

    path: Path
    scores: Scores = field(default_factory=dict)
    twins: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of an arm its twins, by kind."""


def worth(subject: Subject, path: Path) -> Section:
    """What the model's mixtures gain over its twins, by the scores of a benchmark.

    Args:
        subject: weights that were trained in the benchmark; their arm is known by their scores.
        path: ``scores.csv`` of the benchmark.

    Raises:
        GeomoeError: no such file, one of other weights or samples, or without twins of their arm.
    """
    monitor = subject.task.monitor
    table = _read(path, monitor)
    mine = _arm_of(subject, table)
    twins = table.twins.get(mine, {})
    gains = {kind: _gain(table, mine, twins[kind], monitor) for kind in _CALLED if kind in twins}
    if not gains:
        raise GeomoeError(
            f"{path} names no twin of {mine}, which {subject.model.name} is; geomoe benchmark --twins MODEL "
            "writes the file of a benchmark that has some"
        )
    columns = ("twin", "arm", "mean", "gain of the mixture", "low", "high", "seeds", "samples")
    rows = tuple(
        (_CALLED[kind], g.arm, g.mean, g.interval.mean, *(_ends(g) or (None, None)), g.seeds, g.samples)
        for kind, g in gains.items()
    )
    return Section(
        "worth",
        "Is the mixture worth having?",
        f"By {path.name} of geomoe benchmark: the arm {mine}, one of whose runs these weights are (they "
        "have its scores), and its twins, which have the same recipe and the same samples. Gains are in "
        f"{measure(monitor).title}, paired by seed and sample; intervals are of 95 % and cover other seeds "
        "and other samples, or what of these there are several; each sample counts alike.",
        tuple(_findings(gains, monitor)),
        (Table("worth", "What the mixture gains over twins that were trained alike.", columns, rows),),
        (),
        {
            "monitor": monitor,
            "arm": mine,
            "twins": {
                kind: {"arm": g.arm, "mean": g.mean, "gain": g.interval.mean, "interval_95": _ends(g),
                       "seeds": g.seeds, "samples": g.samples}
                for kind, g in gains.items()
            },
        },
    )  # fmt: skip


def _read(path: Path, monitor: str) -> _Scored:
    table = _Scored(path)
    for row in _rows(path):
        if row["metric"] == monitor:
            if row.get("twin") and row.get("of"):
                table.twins.setdefault(row["of"], {})[row["twin"]] = row["arm"]
            of = table.scores.setdefault(row["arm"], {}).setdefault(int(row["seed"]), {})
            of[row["item"]] = float(row["value"])
    for seeds in table.scores.values():
        for of in seeds.values():
            if len(of) > 1:
                of.pop(ALL, None)
    if not table.scores:
        raise GeomoeError(f"{path} has no scores in {measure(monitor).title}, by which the model is judged")
    return table


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        read = csv.DictReader(read_small(path, LARGEST).decode().splitlines())
        for row in read:
            if not {"arm", "seed", "item", "metric", "value"} <= row.keys() or None in row.values():
                raise ValueError
            int(row["seed"]), float(row["value"])
            yield row
    except (csv.Error, ValueError) as error:
        raise GeomoeError(f"{path} is no table of scores; give scores.csv of geomoe benchmark") from error


def _arm_of(subject: Subject, table: _Scored) -> str:
    """The arm one of whose runs has the weights' scores; raises GeomoeError where none has."""
    mine: dict[str, float] = {}
    for names, batch in fewer(subject, _SAMPLES).batches():
        values = subject.scores(subject.answer(batch), batch)[subject.task.monitor]
        sizes = subject.task.sizes(batch)
        mine |= {n: v for n, v, s in zip(names, values.tolist(), sizes.tolist(), strict=True) if s > 0}
    alike = {
        (arm, seed): _alike(mine, of) for arm, seeds in table.scores.items() for seed, of in seeds.items()
    }
    if all(np.isnan(list(alike.values()))):
        raise GeomoeError(f"{table.path} has scores of other samples than {subject.samples.data}'s")
    arm, seed = max(alike, key=lambda run: (np.nan_to_num(alike[run], nan=-1), run[0] in table.twins))
    if alike[arm, seed] < _ALIKE:
        raise GeomoeError(
            f"{table.path} does not hold {subject.model.name}: its scores are at most those of {arm}, seed "
            f"{seed}, on {alike[arm, seed]:.0%} of {counted(len(mine), 'sample')}; give the table of its own "
            "benchmark"
        )
    return arm


def _alike(mine: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """Share of the samples that two have in common on which they have one score; nan if there are none."""
    pairs = [(mine[name], theirs[name]) for name in mine if name in theirs]
    if not pairs:
        return float("nan")
    return float(np.mean([abs(a - b) <= _ROUNDING * max(abs(a), abs(b)) for a, b in pairs]))


def _gain(table: _Scored, of_model: str, arm: str, monitor: str) -> _Gain:
    mine, theirs = table.scores[of_model], table.scores[arm]
    both = {seed: sorted(mine[seed].keys() & theirs[seed].keys()) for seed in mine.keys() & theirs.keys()}
    seeds = [seed for seed in sorted(both) if both[seed]]
    if not seeds:
        raise GeomoeError(f"{table.path}: {of_model} and {arm} have no seed and sample in common")
    shared = sorted(set[str].intersection(*(set(both[seed]) for seed in seeds)))
    # Samples on which all seeds were tested are crossed with them; of others each seed has one mean.
    if any(len(both[seed]) > len(shared) for seed in seeds):
        a, b = (
            np.array([[fmean(of[seed][name] for name in both[seed])] for seed in seeds])
            for of in (mine, theirs)
        )
    else:
        a, b = (np.array([[of[seed][name] for name in shared] for seed in seeds]) for of in (mine, theirs))
    found = mean_interval((a - b) * measure(monitor).gain(1, 0))
    samples = len({name for seed in seeds for name in both[seed]})
    return _Gain(arm, float(b.mean()), found, len(seeds), samples)


def _ends(gain: _Gain) -> list[float] | None:
    return gain.interval.ends if gain.known else None


def _findings(gains: Mapping[str, _Gain], monitor: str) -> Iterator[Finding]:
    of = measure(monitor)
    for number, (kind, gain) in enumerate(gains.items()):
        found = gain.interval
        code = "not_shown_to_beat_twin"
        if gain.known and found.low > 0:
            code = "beats_twin"
        elif gain.known and found.high < 0:
            code = "twin_is_better"
        says = {
            "beats_twin": "The mixture beats its",
            "not_shown_to_beat_twin": "The mixture is not shown to beat its",
            "twin_is_better": "The mixture is worse than its",
        }[code]
        ends = f" ({of.text(found.low, True)} to {of.text(found.high, True)})" if gain.known else ""
        over = f"{counted(gain.seeds, 'seed')} and {counted(gain.samples, 'sample')}"
        level: Level = WORTH[code] if not number or code == "beats_twin" else "note"  # type: ignore[assignment]
        text = f"{says} {_CALLED[kind]}: {of.text(found.mean, True)} of {of.title}{ends}, over {over}."
        yield Finding(level, code, text)
    if any(gain.seeds == 1 for gain in gains.values()):
        yield Finding("note", "one_seed", "There is one seed: another one may turn what is said of twins.")
