"""What arms of super-resolution are trained and scored on: folders, or parts of several sources."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from geomoe.data.images import find_images, read_image, to_unit
from geomoe.data.split import Split
from geomoe.data.super_resolution.degradation import get_degradation
from geomoe.data.super_resolution.layouts import REAL_LAYOUTS, SPLIT_LAYOUTS, find_layout
from geomoe.data.super_resolution.pairs import degrade, mirror_to
from geomoe.data.super_resolution.sources import Source
from geomoe.errors import GeomoeError
from geomoe.evaluation.benchmark.config import Arm, Benchmark
from geomoe.evaluation.benchmark.images import Images, Scored
from geomoe.evaluation.scores import ItemScores
from geomoe.evaluation.super_resolution.by_source import LARGE, TILE, read_sources_part, score_sources
from geomoe.evaluation.super_resolution.evaluate import evaluate
from geomoe.models import LoadedModel, load
from geomoe.models.registry import build

__all__ = ["locate_images"]

_TILE = 64


def locate_images(benchmark: Benchmark, root: Path) -> Images:
    """The images of a benchmark below ``root``.

    Raises:
        GeomoeError: no images, pairs that were measured, or test images that training would see.
    """
    if benchmark.sources is not None:
        folders = (root / source.folder for source in benchmark.sources.sources if not source.made)
        return _Mixed(benchmark, root, _digest(folders))
    train = root / benchmark.train
    if benchmark.test is None and find_layout(train) not in SPLIT_LAYOUTS:
        raise GeomoeError(
            f"{train} has no test split that geomoe knows; keep the test images in a folder of their own "
            "and name it: test: FOLDER"
        )
    test = train if benchmark.test is None else root / benchmark.test
    for folder in (train, test):
        if (layout := find_layout(folder)) in REAL_LAYOUTS:
            raise GeomoeError(
                f"{folder} holds pairs that were measured ({layout}), which training would take as they are "
                f"and the test would downsample by {benchmark.degradation}; give a folder of images alone"
            )
    if benchmark.test is not None:
        one, other = train.resolve(), test.resolve()
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise GeomoeError(f"train {train} and test {test} hold the same images; keep them apart")
    return _Folders(benchmark, train, test, _digest((train, test)))


class _Upscaled:
    """What images have in common that are downsampled, wherever they come from."""

    benchmark: Benchmark

    def model(self, arm: Arm) -> nn.Module:
        b = self.benchmark
        if arm.weights is not None:
            return load(arm.weights, b.scale).model
        with torch.device("meta"):
            return build(arm.model, b.model_options(arm))

    def fit_and_score(self, arm: Arm, seed: int) -> Scored:
        raise GeomoeError(f"{arm.model} gives no images")


def _digest(folders: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for folder in dict.fromkeys(folders):
        for path in _images(folder):
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _images(folder: Path) -> list[Path]:
    if find_layout(folder) not in SPLIT_LAYOUTS:
        return find_images(folder)
    return [*_of_split(folder, "train"), *_of_split(folder, "test")]


def _of_split(folder: Path, split: Split = "test") -> list[Path]:
    """The images of one split of ``folder``, or all where it has none."""
    files = SPLIT_LAYOUTS.get(find_layout(folder))
    return find_images(folder) if files is None else files(folder, split)


def _middle(image: Tensor, benchmark: Benchmark, degradation: str) -> Tensor:
    assert benchmark.scale is not None
    low, _ = degrade(image, benchmark.scale, get_degradation(degradation))
    low = mirror_to(to_unit(low), _TILE)
    y, x = ((size - _TILE) // 2 for size in low.shape[1:])
    return low[None, :, y : y + _TILE, x : x + _TILE].contiguous()


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {metric: fmean(one[metric] for one in scores) for metric in scores[0]}


@dataclass(frozen=True)
class _Folders(_Upscaled):
    """A folder that ``geomoe fit`` is given, and one that is scored; one where it has a test split."""

    benchmark: Benchmark
    train: Path
    test: Path
    digest: str

    def fit_options(self, arm: Arm, seed: int) -> dict[str, Any]:
        b = self.benchmark
        return {"root": str(self.train), "scale": b.scale, "degradation": b.degradation}

    def score(self, model: LoadedModel, arm: Arm, device: str) -> Scored:
        b = self.benchmark
        found = evaluate(model, self.test, degradation=b.degradation, protocol=b.protocol, device=device)
        return Scored(found.scored, found.by_item, found.overall.baseline)

    def tile(self) -> Tensor:
        image = read_image(_of_split(self.test)[0], self.benchmark.bands)
        return _middle(image, self.benchmark, self.benchmark.degradation)


@dataclass(frozen=True)
class _Mixed(_Upscaled):
    """Several sources below one folder, of each of which a part is held out."""

    benchmark: Benchmark
    root: Path
    files: str

    @property
    def digest(self) -> str:
        b = self.benchmark
        return f"{self.files} {b.degradations} {b.limit} {LARGE} {TILE}"

    def _sources(self, arm: Arm) -> Sequence[Source]:
        return self.benchmark.sources_of(arm)

    def fit_options(self, arm: Arm, seed: int) -> dict[str, Any]:
        sources = [asdict(source) for source in self._sources(arm)]
        for source in sources:
            source["made"] = list(source["made"])
        return {"root": str(self.root), "scale": self.benchmark.scale, "sources": sources}

    def score(self, model: LoadedModel, arm: Arm, device: str) -> Scored:
        b = self.benchmark
        parts = read_sources_part(self._sources(arm), self.root, "test", validation=0, limit=b.limit)
        rows = score_sources([model], parts, b.degradations, protocol=b.protocol, device=device)
        ours, base = (defaultdict[str, ItemScores](dict) for _ in range(2))
        for row in rows:
            for name, scores in row.scores.items():
                ours[row.degradation][f"{row.source}: {name}"] = scores
                base[row.degradation][f"{row.source}: {name}"] = row.baseline[name]
        assert b.sources is not None
        return Scored(
            scored=f"what is held out of each source of {b.sources.name}",
            scores={
                image: _means([of[image] for of in ours.values()]) for image in next(iter(ours.values()))
            },
            baseline=_means([scores for of in base.values() for scores in of.values()]),
            by_degradation=dict(ours),
            baseline_by_degradation=dict(base),
        )

    def tile(self) -> Tensor:
        assert self.benchmark.sources is not None
        parts = read_sources_part(self.benchmark.sources.sources, self.root, "test", validation=0, limit=1)
        return _middle(parts[0].images[0][1], self.benchmark, self.benchmark.degradations[0])
