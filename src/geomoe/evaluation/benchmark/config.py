"""What a benchmark compares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from geomoe.data.super_resolution.sources import Source
from geomoe.errors import GeomoeError, expect
from geomoe.models.registry import config_of
from geomoe.models.weights import load
from geomoe.tasks.families import Family, family
from geomoe.tasks.options import options_of
from geomoe.tasks.source_list import SourceList

__all__ = ["SECTIONS", "SUPER_RESOLUTION", "Arm", "Benchmark", "Recipe", "check_seeds"]

SUPER_RESOLUTION = "super_resolution"
"""The task whose images are downsampled to be scored; samples of all others are what they are."""
SECTIONS = ("trainer", "model", "data", "ema", "weights")
"""Of the options of ``geomoe fit`` that a recipe has."""

Recipe = dict[str, dict[str, Any]]
"""Options of ``geomoe fit`` by section, one of :data:`SECTIONS`."""


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: of its folder and on the command line.
        label: in the table.
        model: name in the registry, or of an estimator where there are ``features``. Whether a model is there
            is asked when the benchmark is run.
        options: of the model's configuration.
        recipe: where its training differs from that of the others.
        paper: the scores that a paper prints, by metric; empty where there is none.
        weights: scored as they are, by name or path, in place of all training; ``model`` is then what they
            are called.
        each: whether it is one network for each sensor of the sources, which share its steps as their
            sources share the patches, and are one row of the table.
        sensor: it is trained and scored on the sources of this one alone.
        members: networks of which the arm is an ensemble, each trained for its share of the steps, from a
            seed of its own; 1 for none.
        member: number of one of them, from 1; 0 of all else.
        at: the place of the arm in a sweep, such as ``{experts: 4, top_k: 1}``; empty outside of one.
        features: what an estimator of :mod:`geomoe.evaluation.benchmark.estimators` is shown of the samples;
            None for a network.
        beside: name of the arm that it is tested against, and may be a twin of; the flagship if None.
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
    features: str | None = None
    members: int = 1
    member: int = 0
    at: dict[str, float] = field(default_factory=dict)
    beside: str | None = None

    @property
    def twin(self) -> str:
        """What replaces its mixtures, as of :data:`geomoe.models.twin.Twin`."""
        return str(self.options.get("twin", "none"))

    @property
    def trained(self) -> bool:
        """Whether it is a network that is trained here."""
        return self.weights is None and self.features is None


@dataclass(frozen=True)
class Benchmark:
    """Arms, and all that is the same for them.

    Attributes:
        title: of the table.
        flagship: name of the arm that the others are tested against, but for those that name another.
        task: family of the arms' task, as of :mod:`geomoe.tasks.families`.
        seeds: each arm is trained with each.
        train: what is trained on below the folder of the data; empty for that folder itself.
        recipe: of the training.
        arms: at least one.
        settings: options of the data by name, under each of which all arms are compared, in a table of its
            own; see :meth:`under`. Not of super-resolution.
        split_by_seed: whether the data are split anew for each seed. Not of super-resolution.
        rank_by: the metric by which arms are compared; None for the one by which the task judges samples. Not
            of super-resolution.
        scale: 2, 3, 4 or 8, of super-resolution, as are the following.
        degradation: of the inputs, in training and in the test.
        protocol: of the scores, in validation and in the test.
        test: folder of the test images below that of the data. None where the data's layout has a test
            split of its own.
        sources: in place of these folders: the sources of training, of each of which a part is held out and
            scored.
        degradations: of the inputs that are scored, where there are sources.
        limit: of each source, so many of its images are scored at most.
    """

    title: str
    flagship: str
    task: str
    seeds: tuple[int, ...]
    train: str
    recipe: Recipe
    arms: tuple[Arm, ...]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    split_by_seed: bool = False
    rank_by: str | None = None
    scale: int | None = None
    degradation: str = ""
    protocol: str = ""
    test: str | None = None
    sources: SourceList | None = None
    degradations: tuple[str, ...] = ()
    limit: int | None = None

    @property
    def of(self) -> Family:
        """Task and data of the arms."""
        return family(self.task)

    def under(self) -> dict[str, Benchmark]:
        """A benchmark for each of the settings, by name; itself, by an empty one, where there are none."""
        return {
            name: replace(
                self,
                title=f"{self.title}: {name}",
                settings={},
                recipe={**self.recipe, "data": {**self.recipe.get("data", {}), **options}},
            )
            for name, options in self.settings.items()
        } or {"": self}

    def recipe_of(self, arm: Arm) -> Recipe:
        """The recipe with what ``arm`` changes."""
        return {
            section: {**self.recipe.get(section, {}), **arm.recipe.get(section, {})}
            for section in SECTIONS
            if section in self.recipe or section in arm.recipe
        }

    def steps(self, arm: Arm) -> int:
        """Optimiser steps of one run of ``arm``; 0 of what is no network that is trained."""
        return int(self.recipe_of(arm)["trainer"]["max_steps"]) if arm.trained else 0

    @property
    def ranks(self) -> str:
        """The metric by which arms are compared."""
        return self.rank_by or self.of.task.monitor

    @property
    def said(self) -> dict[str, str]:
        """What all arms have in common, in words, by what it is."""
        if self.scale is not None:
            return {"protocol": self.protocol, "degradation": self._inputs, "scale": f"x{self.scale}"}
        options = ", ".join(f"{name}={value}" for name, value in self.recipe.get("data", {}).items())
        anew = "; split anew for each seed" if self.split_by_seed else ""
        return {"task": self.task, "data": f"{options}{anew}"}

    @property
    def _inputs(self) -> str:
        if self.sources is None:
            return self.degradation
        return f"in training those of each source, in the test {' and '.join(self.degradations)}"

    def parts(self, arm: Arm) -> tuple[Arm, ...]:
        """What is trained of an arm: itself, or its networks, one for each sensor, or member."""
        shares: dict[str, float] = {str(i): 1.0 for i in range(1, arm.members + 1)}
        if arm.each:
            shares = {}
            for source in self.sources_of(arm):
                shares[str(source.sensor)] = shares.get(str(source.sensor), 0.0) + source.share
        elif arm.members == 1:
            return (arm,)
        every = self.steps_per_epoch(arm)
        epochs, total = self.steps(arm) // every, sum(shares.values())
        parts = []
        for number, (of, share) in enumerate(shares.items(), 1):
            mine = max(1, round(every * share / total))
            recipe = {
                **arm.recipe,
                "trainer": {**arm.recipe.get("trainer", {}), "max_steps": mine * epochs},
                "data": {**arm.recipe.get("data", {}), "steps_per_epoch": mine},
            }
            part = replace(arm, name=f"{arm.name}-{of}", recipe=recipe, each=False, members=1)
            parts.append(replace(part, sensor=of) if arm.each else replace(part, member=number))
        return tuple(parts)

    def steps_per_epoch(self, arm: Arm) -> Any:
        """Optimiser steps between two validations of ``arm``."""
        usual = options_of(self.of.data)["steps_per_epoch"].default
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
        """Options of the arm's model, with those that are the same for all arms, but for what data decide."""
        same = {} if self.scale is None else {"scale": self.scale, "bands": self.bands}
        return {**same, **arm.options}

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
        chosen = self.arms if only is None else tuple(self.arm(name) for name in only)
        return replace(self, seeds=self.seeds if seeds is None else check_seeds(list(seeds)), arms=chosen)

    def against(self, name: str) -> Benchmark:
        """With another arm as the flagship; raises GeomoeError where none is called so."""
        return replace(self, flagship=self.arm(name).name)

    def rival(self, arm: Arm) -> Arm:
        """What ``arm`` is tested against, and may be a twin of; the flagship's is itself."""
        return self.arm(arm.beside or self.flagship)

    def arm(self, name: str) -> Arm:
        """The arm of that name; raises GeomoeError where none is called so."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise GeomoeError(f"no arm is called {name!r}; there are: {', '.join(a.name for a in self.arms)}")


def check_seeds(found: object) -> tuple[int, ...]:
    """Seeds as given; raises GeomoeError for anything else than whole numbers from 0, each once."""
    good = isinstance(found, list) and found and all(type(s) is int and s >= 0 for s in found)
    expect(bool(good), "seeds", found, "a list of whole numbers from 0, such as [0, 1, 2]")
    assert isinstance(found, list)
    expect(len(set(found)) == len(found), "seeds", found, "each seed once")
    return tuple(found)
