"""Samples that are what they are, of any task: what arms are trained on, and scored on by its metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.evaluation.benchmark.config import Arm, Benchmark
from geomoe.evaluation.benchmark.estimators import fit_estimator
from geomoe.evaluation.benchmark.images import Scored
from geomoe.evaluation.samples import batches, evaluate_samples, score_samples
from geomoe.models import LoadedModel
from geomoe.tasks.class_task import ClassTask
from geomoe.tasks.stream import StreamData
from geomoe.tasks.task import Task

__all__ = ["Samples"]

_TILE = 64


@dataclass(frozen=True)
class Samples:
    """The data of a benchmark of any task but super-resolution.

    Attributes:
        benchmark: what is compared.
        root: of the data set.
    """

    benchmark: Benchmark
    root: Path

    @cached_property
    def digest(self) -> str:
        """Of names and sizes of all files.

        Raises:
            GeomoeError: no such data.
        """
        if not self.root.exists():
            raise GeomoeError(f"{self.root} does not exist; give the folder of the data by --data")
        files = sorted(path for path in (self.root, *self.root.rglob("*")) if path.is_file())
        said = (f"{path.relative_to(self.root).as_posix()} {path.stat().st_size}\n" for path in files)
        return hashlib.sha256("".join(said).encode()).hexdigest()

    def fit_options(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Of section ``data`` of ``geomoe fit``."""
        anew = {"split_seed": seed} if self.benchmark.split_by_seed else {}
        return {"root": str(self.root), **anew}

    def _options(self, arm: Arm, seed: int) -> dict[str, Any]:
        return {**self.benchmark.recipe_of(arm).get("data", {}), **self.fit_options(arm, seed)}

    def _data(self, arm: Arm, seed: int) -> StreamData:
        return self.benchmark.of.data(**self._options(arm, seed))

    @cached_property
    def _told(self) -> dict[str, dict[str, Any]]:
        """What networks are made for, by the options of the data: to read these may take a while."""
        return {}

    def model(self, arm: Arm) -> nn.Module:
        """The arm's network for these data, without memory."""
        key = repr(self._options(arm, 0))
        if key not in self._told:
            self._told[key] = self._facts(self._data(arm, 0))
        return self._task(self._told[key], {"model": arm.model, "options": arm.options}).model

    def _facts(self, data: StreamData) -> dict[str, Any]:
        return {name: getattr(data, name) for name in self.benchmark.of.task.from_data}

    def _task(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> Task:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return self.benchmark.of.task(**facts, **options)

    def score(self, model: LoadedModel, arm: Arm, device: str) -> Scored:
        """Scores of a network on the test part of what it was trained on."""
        found = evaluate_samples(model, self.root, device=device)
        return Scored(
            found.scored,
            found.by_item,
            found.overall.baseline,
            overall=found.overall.values,
            sizes=found.sizes,
        )

    def fit_and_score(self, arm: Arm, seed: int) -> Scored:
        """Scores of an estimator that has learned from the training part."""
        assert arm.features is not None
        data = self._data(arm, seed)
        task = self._task(self._facts(data), {})
        assert isinstance(task, ClassTask)
        fitted = fit_estimator(arm.model, arm.features, arm.options, seed, task, data.samples("fit"))
        named = data.samples("test")
        found = score_samples(task, named, fitted)
        return Scored(
            f"{len(found.by_item)} test samples of {named.data}",
            found.by_item,
            found.overall.baseline,
            overall=found.overall.values,
            sizes=found.sizes,
        )

    def tile(self) -> Tensor:
        """The middle of the first test sample, ``[1, bands, h, w]``, 64 pixels high and wide at most."""
        named = self._data(self.benchmark.arms[0], self.benchmark.seeds[0]).samples("test")
        _, batch = next(batches(named.samples[:1]))
        image = batch["image"]
        y, x = (max(size - _TILE, 0) // 2 for size in image.shape[2:])
        return image[:, :, y : y + _TILE, x : x + _TILE].contiguous()
