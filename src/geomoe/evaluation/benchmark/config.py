"""What a benchmark compares, as a YAML file says it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml

from geomoe.data.degradation import get_degradation
from geomoe.data.sources import Source
from geomoe.errors import GeomoeError, expect
from geomoe.files import read_small
from geomoe.metrics.measures import MEASURES
from geomoe.metrics.protocol import get_protocol
from geomoe.models.registry import config_of
from geomoe.models.weights import load
from geomoe.tasks.average import MovingAverage
from geomoe.tasks.bounded_yaml import load_yaml
from geomoe.tasks.families import USUAL
from geomoe.tasks.options import options_of
from geomoe.tasks.source_list import SourceList, parse_sources, read_sources
from geomoe.tasks.weights import WeightsWriter

__all__ = ["Arm", "Benchmark", "Recipe", "read_benchmark"]

Recipe = dict[str, dict[str, Any]]
"""Options of ``geomoe fit`` by section: ``trainer``, ``model``, ``data``, ``ema``, ``weights``."""

_SECTIONS: dict[str, type] = {
    "trainer": pl.Trainer,
    "model": USUAL.task,
    "data": USUAL.data,
    "ema": MovingAverage,
    "weights": WeightsWriter,
}
# What is the same for all arms by definition, or differs by definition, is no part of the recipe.
_TAKEN = {
    "trainer": ("logger", "default_root_dir"),
    "model": ("model", "facts", "options", "scale", "bands", "protocol", "seed"),
    "data": ("root", "scale", "degradation", "seed", "sources"),
}
_KEYS = (
    "title", "flagship", "scale", "degradation", "protocol", "seeds", "train", "test", "sources",
    "degradations", "limit", "recipe", "arms",
)  # fmt: skip
_OPTIONAL = {
    "degradation": "bilinear", "protocol": "mfg_hmoe", "train": "", "test": None, "sources": None,
    "degradations": ["bilinear", "mtf"], "limit": None,
}  # fmt: skip
_ARM_KEYS = ("label", "model", "options", "recipe", "paper", "weights", "each")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: of its folder and on the command line.
        label: in the table.
        model: name in the registry. Whether it is there is asked when the benchmark is run.
        options: of the model's configuration.
        recipe: where its training differs from that of the others.
        paper: the scores that a paper prints, by metric; empty where there is none.
        weights: scored as they are, by name or path, in place of all training; ``model`` is then what they
            are called.
        each: whether it is one network for each sensor of the sources, which share its steps as their
            sources share the patches, and are one row of the table.
        sensor: it is trained and scored on the sources of this one alone.
    """

    name: str
    label: str
    model: str
    options: dict[str, Any]
    recipe: Recipe
    paper: dict[str, float] = field(default_factory=dict)
    weights: str | None = None
    each: bool = False
    sensor: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """Arms, and all that is the same for them.

    Attributes:
        title: of the table.
        flagship: name of the arm that the others are tested against.
        scale: 2, 3, 4 or 8.
        degradation: of the inputs, in training and in the test.
        protocol: of the scores, in validation and in the test.
        seeds: each arm is trained with each.
        train: folder of the training images below that of the data; empty for that folder itself.
        test: folder of the test images below that of the data. None where the data's layout has a test
            split of its own.
        sources: in place of these folders: the sources of training, of each of which a part is held out and
            scored.
        degradations: of the inputs that are scored, where there are sources.
        limit: of each source, so many of its images are scored at most.
        recipe: of the training.
        arms: at least one.
    """

    title: str
    flagship: str
    scale: int
    degradation: str
    protocol: str
    seeds: tuple[int, ...]
    train: str
    test: str | None
    sources: SourceList | None
    degradations: tuple[str, ...]
    limit: int | None
    recipe: Recipe
    arms: tuple[Arm, ...]

    def recipe_of(self, arm: Arm) -> Recipe:
        """The recipe with what ``arm`` changes."""
        return {
            section: {**self.recipe.get(section, {}), **arm.recipe.get(section, {})}
            for section in _SECTIONS
            if section in self.recipe or section in arm.recipe
        }

    def steps(self, arm: Arm) -> int:
        """Optimiser steps of one run of ``arm``; 0 of weights that are scored as they are."""
        return 0 if arm.weights is not None else int(self.recipe_of(arm)["trainer"]["max_steps"])

    @property
    def ranks(self) -> str:
        """The metric by which arms are compared."""
        return get_protocol(self.protocol).ranks

    @property
    def inputs(self) -> str:
        """How inputs are made, in words."""
        if self.sources is None:
            return self.degradation
        return f"in training those of each source, in the test {' and '.join(self.degradations)}"

    def parts(self, arm: Arm) -> tuple[Arm, ...]:
        """What is run of an arm: itself, or its networks, one for each sensor."""
        if not arm.each:
            return (arm,)
        shares: dict[str, float] = {}
        for source in self.sources_of(arm):
            shares[str(source.sensor)] = shares.get(str(source.sensor), 0.0) + source.share
        every = self._steps_per_epoch(arm)
        epochs, total = self.steps(arm) // every, sum(shares.values())
        parts = []
        for sensor, share in shares.items():
            mine = max(1, round(every * share / total))
            recipe = {
                **arm.recipe,
                "trainer": {**arm.recipe.get("trainer", {}), "max_steps": mine * epochs},
                "data": {**arm.recipe.get("data", {}), "steps_per_epoch": mine},
            }
            name = f"{arm.name}-{sensor}"
            parts.append(replace(arm, name=name, recipe=recipe, each=False, sensor=sensor))
        return tuple(parts)

    def _steps_per_epoch(self, arm: Arm) -> Any:
        usual = options_of(USUAL.data)["steps_per_epoch"].default
        return self.recipe_of(arm).get("data", {}).get("steps_per_epoch", usual)

    def sources_of(self, arm: Arm) -> tuple[Source, ...]:
        """Those that an arm is trained and scored on."""
        every = () if self.sources is None else self.sources.sources
        return tuple(source for source in every if arm.sensor in (None, source.sensor))

    @property
    def bands(self) -> int:
        """Channels of the images."""
        return int(self.recipe.get("data", {}).get("bands", 3))

    def model_options(self, arm: Arm) -> dict[str, Any]:
        """Options of the arm's model, with those that are the same for all arms."""
        return {"scale": self.scale, "bands": self.bands, **arm.options}

    def model_config(self, arm: Arm) -> Any:
        """Every option of the arm's model; raises GeomoeError where there is no such model or option."""
        try:
            if arm.weights is not None:
                return load(arm.weights, self.scale).model.config
            return config_of(arm.model, self.model_options(arm))
        except GeomoeError as error:
            raise GeomoeError(f"arm {arm.name}: {error}; change it, or leave it out by --only") from error

    def choose(self, seeds: Iterable[int] | None, only: Iterable[str] | None) -> Benchmark:
        """With other seeds, or some of the arms alone; the flagship stays what it is."""
        chosen = self.arms if only is None else tuple(self._arm(name) for name in only)
        return replace(self, seeds=self.seeds if seeds is None else _seeds(list(seeds)), arms=chosen)

    def against(self, name: str) -> Benchmark:
        """With another arm as the flagship; raises GeomoeError where none is called so."""
        return replace(self, flagship=self._arm(name).name)

    def _arm(self, name: str) -> Arm:
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise GeomoeError(f"no arm is called {name!r}; there are: {', '.join(a.name for a in self.arms)}")


def read_benchmark(path: str | Path) -> Benchmark:
    """The benchmark that a YAML file describes.

    Raises:
        GeomoeError: no such file, no YAML, an unknown or missing key, or a value that cannot be.
    """
    path = Path(path)
    try:
        found = load_yaml(read_small(path).decode())
    except (yaml.YAMLError, ValueError) as error:  # the second for text that is none, and odd dates
        raise GeomoeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return _benchmark(found)
    except GeomoeError as error:
        raise GeomoeError(f"{path.name}: {error}") from error


def _benchmark(found: object) -> Benchmark:
    given = {**_OPTIONAL, **_mapping(found, "the file", _KEYS)}
    missing = [key for key in _KEYS if key not in given]
    if missing:
        raise GeomoeError(f"{missing[0]} is missing; a benchmark has: {', '.join(_KEYS)}")
    for key in ("title", "flagship", "degradation", "protocol", "train"):
        expect(isinstance(given[key], str), key, given[key], "text")
    expect(given["scale"] in (2, 3, 4, 8), "scale", given["scale"], "2, 3, 4 or 8")
    expect(given["test"] is None or isinstance(given["test"], str), "test", given["test"], "a folder's name")
    get_degradation(given["degradation"])
    get_protocol(given["protocol"])
    sources, degradations = _sources(given), _degradations(given["degradations"])
    limit = given["limit"]
    expect(limit is None or (type(limit) is int and limit > 0), "limit", limit, "a whole number from 1")
    arms = _mapping(given["arms"], "arms")
    expect(bool(arms), "arms", arms, "at least one")
    benchmark = Benchmark(
        **{
            **given,
            "seeds": _seeds(given["seeds"]),
            "sources": sources,
            "degradations": degradations,
            "recipe": _recipe(given["recipe"], "recipe"),
            "arms": tuple(_arm(name, arm) for name, arm in arms.items()),
        }
    )
    benchmark._arm(benchmark.flagship)
    for arm in benchmark.arms:
        if arm.weights is None:
            _check_steps(benchmark, arm)
        if arm.each and not (benchmark.sources and all(s.sensor for s in benchmark.sources_of(arm))):
            raise GeomoeError(
                f"arms.{arm.name}.each: a network for each sensor wants sources, and the sensor of each"
            )
    return benchmark


def _sources(given: Mapping[str, Any]) -> SourceList | None:
    """Those of a training configuration, by name or path, or of the list that the file has itself."""
    found = given["sources"]
    if found is None:
        return None
    if given["train"] or given["test"] is not None or given["degradation"] != _OPTIONAL["degradation"]:
        raise GeomoeError(
            "sources have their own folders and degradations; leave train, test, degradation out"
        )
    if given["recipe"].get("data", {}).get("bands", 3) != 3:
        raise GeomoeError("sources are scored in three bands; leave recipe.data.bands out")
    return read_sources(found) if isinstance(found, str) else SourceList("the list", parse_sources(found))


def _degradations(found: object) -> tuple[str, ...]:
    good = isinstance(found, list) and found and all(isinstance(name, str) for name in found)
    expect(bool(good), "degradations", found, "a list of names, such as [bilinear, mtf]")
    assert isinstance(found, list)
    return tuple(get_degradation(name).name for name in dict.fromkeys(found))


def _arm(name: object, found: object) -> Arm:
    expect(isinstance(name, str) and _NAME.fullmatch(name) is not None, "arm", name, "letters, digits, _.+-")
    where = f"arms.{name}"
    given = _mapping(found, where, _ARM_KEYS)
    if "weights" in given:
        return _scored_arm(str(name), given, where)
    expect(isinstance(given.get("model"), str), f"{where}.model", given.get("model"), "the name of a model")
    options = _mapping(given.get("options") or {}, f"{where}.options")
    for key in ("scale", "bands"):
        if key in options:
            raise GeomoeError(f"{where}.options: {key} is the same for all arms; leave it out here")
    recipe = _recipe(given.get("recipe") or {}, f"{where}.recipe")
    if "bands" in recipe.get("data", {}):
        raise GeomoeError(f"{where}.recipe.data: bands is the same for all arms; leave it out here")
    each = given.get("each")
    expect(each in (None, "sensor"), f"{where}.each", each, "sensor, or nothing")
    return Arm(
        name=str(name),
        label=str(given.get("label", name)),
        model=given["model"],
        options=options,
        recipe=recipe,
        paper=_paper(given, where),
        each=each is not None,
    )


def _scored_arm(name: str, given: dict[str, Any], where: str) -> Arm:
    weights = given["weights"]
    expect(isinstance(weights, str), f"{where}.weights", weights, "a name or path of weights")
    for key in ("model", "options", "recipe", "each"):
        if key in given:
            raise GeomoeError(f"{where}: weights are scored as they are; leave {key} out, or weights")
    return Arm(name, str(given.get("label", name)), weights, {}, {}, _paper(given, where), weights)


def _paper(arm: Mapping[str, Any], where: str) -> dict[str, float]:
    given = _mapping(arm.get("paper") or {}, f"{where}.paper", MEASURES)
    for key, value in given.items():
        expect(isinstance(value, int | float), f"{where}.paper.{key}", value, "a number")
    return given


def _recipe(found: object, where: str) -> Recipe:
    recipe = {}
    for section, options in _mapping(found, where, tuple(_SECTIONS)).items():
        place = f"{where}.{section}"
        taken = _TAKEN.get(section, ())
        known = [key for key in options_of(_SECTIONS[section]) if key not in taken]
        for key in _mapping(options, place):
            if key in taken:
                raise GeomoeError(f"{place}.{key} is set by the benchmark; leave it out")
        recipe[section] = _mapping(options, place, known)
    return recipe


def _check_steps(benchmark: Benchmark, arm: Arm) -> None:
    recipe = benchmark.recipe_of(arm)
    steps = recipe.get("trainer", {}).get("max_steps")
    expect(isinstance(steps, int) and steps > 0, "recipe.trainer.max_steps", steps, "a whole number from 1")
    every = benchmark._steps_per_epoch(arm)
    good = isinstance(every, int) and every > 0 and benchmark.steps(arm) % every == 0
    expect(good, "recipe.data.steps_per_epoch", every, f"a divisor of max_steps={steps}")


def _seeds(found: object) -> tuple[int, ...]:
    good = isinstance(found, list) and found and all(type(s) is int and s >= 0 for s in found)
    expect(bool(good), "seeds", found, "a list of whole numbers from 0, such as [0, 1, 2]")
    assert isinstance(found, list)
    expect(len(set(found)) == len(found), "seeds", found, "each seed once")
    return tuple(found)


def _mapping(found: object, where: str, known: Iterable[str] | None = None) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise GeomoeError(f"{where}: expected names with values, found {found!r}")
    if known is not None:
        names = list(known)
        for key in found:
            if key not in names:
                raise GeomoeError(f"{where} has no {key!r}; it has: {', '.join(names)}")
    return dict(found)
