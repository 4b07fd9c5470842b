"""A benchmark from the YAML file that describes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml

from geomoe.data.super_resolution.degradation import get_degradation
from geomoe.errors import GeomoeError, expect
from geomoe.evaluation.benchmark.config import (
    SECTIONS,
    SUPER_RESOLUTION,
    Arm,
    Benchmark,
    Recipe,
    check_seeds,
)
from geomoe.evaluation.benchmark.estimators import check_estimator
from geomoe.files import read_small
from geomoe.metrics.measures import MEASURES
from geomoe.metrics.protocol import get_protocol
from geomoe.tasks.average import MovingAverage
from geomoe.tasks.bounded_yaml import load_yaml
from geomoe.tasks.class_task import ClassTask
from geomoe.tasks.families import family
from geomoe.tasks.options import options_of
from geomoe.tasks.source_list import SourceList, parse_sources, read_sources
from geomoe.tasks.task import Task
from geomoe.tasks.weights import WeightsWriter

__all__ = ["read_benchmark", "taken_by_benchmark"]

# What is the same for all arms by definition, or differs by definition, is no part of the recipe.
_TAKEN = {
    "trainer": ("logger", "default_root_dir"),
    "model": ("model", "facts", "options", "protocol", "seed"),
    "data": ("root", "degradation", "seed", "sources"),
}
_KEYS = ("title", "flagship", "task", "seeds", "train", "recipe", "arms")
_OPTIONAL: dict[str, Any] = {"task": SUPER_RESOLUTION, "train": ""}
_OF_IMAGES: dict[str, Any] = {
    "scale": None, "degradation": "bilinear", "protocol": "mfg_hmoe", "test": None, "sources": None,
    "degradations": ["bilinear", "mtf"], "limit": None,
}  # fmt: skip
_OF_SAMPLES: dict[str, Any] = {"settings": {}, "split_by_seed": False, "rank_by": None}
_ARM_KEYS = ("label", "model", "options", "recipe", "paper", "weights", "each", "features", "members", "at",
             "beside")  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


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
    task = found.get("task", SUPER_RESOLUTION) if isinstance(found, Mapping) else SUPER_RESOLUTION
    expect(isinstance(task, str), "task", task, "text")
    of = family(task)
    further = _OF_IMAGES if task == SUPER_RESOLUTION else _OF_SAMPLES
    keys = (*_KEYS, *further)
    given = {**_OPTIONAL, **further, **_mapping(found, "the file", keys)}
    missing = [key for key in keys if key not in given]
    if missing:
        raise GeomoeError(f"{missing[0]} is missing; a benchmark has: {', '.join(keys)}")
    for key in ("title", "flagship", "train"):
        expect(isinstance(given[key], str), key, given[key], "text")
    sections: dict[str, type] = {
        "trainer": pl.Trainer, "model": of.task, "data": of.data, "ema": MovingAverage,
        "weights": WeightsWriter,
    }  # fmt: skip
    given |= _of_images(given) if task == SUPER_RESOLUTION else _of_samples(given, of.data)
    taken = taken_by_benchmark(of.task)
    arms = _mapping(given["arms"], "arms")
    expect(bool(arms), "arms", arms, "at least one")

    def recipe(found: object, where: str) -> Recipe:
        return _recipe(found, where, sections, taken)

    benchmark = Benchmark(
        **{
            **given,
            "seeds": check_seeds(given["seeds"]),
            "recipe": recipe(given["recipe"], "recipe"),
            "arms": tuple(_arm(name, arm, recipe) for name, arm in arms.items()),
        }
    )
    benchmark.arm(benchmark.flagship)
    for arm in benchmark.arms:
        if arm.beside is not None:
            expect(benchmark.arm(arm.beside) is not arm, f"arms.{arm.name}.beside", arm.beside, "another arm")
        if arm.trained:
            _check_steps(benchmark, arm)
        if arm.features is not None:
            if not issubclass(of.task, ClassTask):
                raise GeomoeError(f"arms.{arm.name}.features: estimators choose classes; {task} has none")
            check_estimator(f"arms.{arm.name}", arm.model, arm.features, arm.options)
        if arm.each and not (benchmark.sources and all(s.sensor for s in benchmark.sources_of(arm))):
            raise GeomoeError(
                f"arms.{arm.name}.each: a network for each sensor needs sources, and the sensor of each"
            )
    return benchmark


def taken_by_benchmark(task: type[Task]) -> dict[str, tuple[str, ...]]:
    """Options of ``geomoe fit`` by section that a recipe does not have: they are the benchmark's own."""
    return {
        **_TAKEN,
        "model": (*_TAKEN["model"], *task.from_data),
        "data": (*_TAKEN["data"], "scale"),
    }


def _of_images(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a benchmark of super-resolution has, checked."""
    for key in ("degradation", "protocol"):
        expect(isinstance(given[key], str), key, given[key], "text")
    if given["scale"] is None:
        raise GeomoeError(f"scale is missing; a benchmark has: {', '.join((*_KEYS, *_OF_IMAGES))}")
    expect(given["scale"] in (2, 3, 4, 8), "scale", given["scale"], "2, 3, 4 or 8")
    expect(given["test"] is None or isinstance(given["test"], str), "test", given["test"], "a folder's name")
    get_degradation(given["degradation"])
    get_protocol(given["protocol"])
    limit = given["limit"]
    expect(limit is None or (type(limit) is int and limit > 0), "limit", limit, "a whole number from 1")
    return {"sources": _sources(given), "degradations": _degradations(given["degradations"])}


def _of_samples(given: Mapping[str, Any], data: type) -> dict[str, Any]:
    """What a benchmark of another task has, checked."""
    anew, known = given["split_by_seed"], options_of(data)
    expect(isinstance(anew, bool), "split_by_seed", anew, "true or false")
    expect(not anew or "split_seed" in known, "split_by_seed", anew, "false, where files decide the split")
    by = given["rank_by"]
    expect(by is None or by in MEASURES, "rank_by", by, f"a metric: {', '.join(MEASURES)}")
    settings = _mapping(given["settings"], "settings")
    for name, options in settings.items():
        expect(_NAME.fullmatch(str(name)) is not None, "settings", name, "letters, digits, _.+-")
        _mapping(options, f"settings.{name}", [key for key in known if key not in _TAKEN["data"]])
    return {"settings": settings}


def _sources(given: Mapping[str, Any]) -> SourceList | None:
    """Those of a training configuration, by name or path, or of the list that the file has itself."""
    found = given["sources"]
    if found is None:
        return None
    if given["train"] or given["test"] is not None or given["degradation"] != _OF_IMAGES["degradation"]:
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


def _arm(name: object, found: object, read_recipe: Callable[[object, str], Recipe]) -> Arm:
    expect(isinstance(name, str) and _NAME.fullmatch(name) is not None, "arm", name, "letters, digits, _.+-")
    where = f"arms.{name}"
    given = _mapping(found, where, _ARM_KEYS)
    if "weights" in given:
        return _scored_arm(str(name), given, where)
    expect(isinstance(given.get("model"), str), f"{where}.model", given.get("model"), "the name of a model")
    options = _mapping(given.get("options") or {}, f"{where}.options")
    for key in ("scale", "bands", "classes"):
        if key in options:
            raise GeomoeError(f"{where}.options: {key} is the same for all arms; leave it out here")
    recipe = read_recipe(given.get("recipe") or {}, f"{where}.recipe")
    if "bands" in recipe.get("data", {}):
        raise GeomoeError(f"{where}.recipe.data: bands is the same for all arms; leave it out here")
    features = given.get("features")
    expect(features is None or isinstance(features, str), f"{where}.features", features, "a name")
    each = given.get("each")
    expect(each in (None, "sensor"), f"{where}.each", each, "sensor, or nothing")
    members, at = given.get("members", 1), _mapping(given.get("at") or {}, f"{where}.at")
    good = type(members) is int and members >= 1
    expect(good, f"{where}.members", members, "a whole number from 1")
    if members > 1 and (features is not None or each is not None):
        raise GeomoeError(f"{where}.members: an ensemble is of networks for all sensors; leave it out")
    beside = given.get("beside")
    expect(beside is None or isinstance(beside, str), f"{where}.beside", beside, "the name of an arm")
    for key, value in at.items():
        expect(isinstance(value, int | float), f"{where}.at.{key}", value, "a number")
    return Arm(
        name=str(name),
        label=str(given.get("label", name)),
        members=members,
        at=at,
        model=given["model"],
        options=options,
        recipe=recipe,
        paper=_paper(given, where),
        each=each is not None,
        features=features,
        beside=beside,
    )


def _scored_arm(name: str, given: dict[str, Any], where: str) -> Arm:
    weights = given["weights"]
    expect(isinstance(weights, str), f"{where}.weights", weights, "a name or path of weights")
    for key in ("model", "options", "recipe", "each", "features", "members"):
        if key in given:
            raise GeomoeError(f"{where}: weights are scored as they are; leave {key} out, or weights")
    at = _mapping(given.get("at") or {}, f"{where}.at")
    return Arm(name, str(given.get("label", name)), weights, {}, {}, _paper(given, where), weights, at=at)


def _paper(arm: Mapping[str, Any], where: str) -> dict[str, float]:
    given = _mapping(arm.get("paper") or {}, f"{where}.paper", MEASURES)
    for key, value in given.items():
        expect(isinstance(value, int | float), f"{where}.paper.{key}", value, "a number")
    return given


def _recipe(
    found: object, where: str, sections: Mapping[str, type], taken: Mapping[str, tuple[str, ...]]
) -> Recipe:
    recipe = {}
    for section, options in _mapping(found, where, SECTIONS).items():
        place = f"{where}.{section}"
        ours = taken.get(section, ())
        known = [key for key in options_of(sections[section]) if key not in ours]
        for key in _mapping(options, place):
            if key in ours:
                raise GeomoeError(f"{place}.{key} is set by the benchmark; leave it out")
        recipe[section] = _mapping(options, place, known)
    return recipe


def _check_steps(benchmark: Benchmark, arm: Arm) -> None:
    recipe = benchmark.recipe_of(arm)
    steps = recipe.get("trainer", {}).get("max_steps")
    expect(isinstance(steps, int) and steps > 0, "recipe.trainer.max_steps", steps, "a whole number from 1")
    every = benchmark.steps_per_epoch(arm)
    good = isinstance(every, int) and every > 0 and benchmark.steps(arm) % every == 0
    expect(good, "recipe.data.steps_per_epoch", every, f"a divisor of max_steps={steps}")


def _mapping(found: object, where: str, known: Iterable[str] | None = None) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise GeomoeError(f"{where}: expected names with values, found {found!r}")
    if known is not None:
        names = list(known)
        for key in found:
            if key not in names:
                raise GeomoeError(f"{where} has no {key!r}; it has: {', '.join(names)}")
    return dict(found)
