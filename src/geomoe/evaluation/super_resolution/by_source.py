"""Scoring models on what is held out of each source that a training set is mixed of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from geomoe.data.images import to_unit
from geomoe.data.split import Part
from geomoe.data.super_resolution.degradation import Degrader, get_degradation, interpolated
from geomoe.data.super_resolution.pairs import degrade
from geomoe.data.super_resolution.sources import Source, read_part
from geomoe.errors import GeomoeError
from geomoe.evaluation.scores import ItemScores, Scores, mean_scores, rounded
from geomoe.evaluation.statistics import Interval, bootstrap_interval
from geomoe.evaluation.super_resolution.crops import score_crop
from geomoe.evaluation.super_resolution.evaluate import middle
from geomoe.layers.super_resolution.known import Known
from geomoe.metrics.measures import measure
from geomoe.metrics.protocol import Protocol, get_protocol
from geomoe.models import LoadedModel
from geomoe.models.device import pick_device
from geomoe.models.measured import Measured
from geomoe.models.precision import Precision, computing_in, pick_precision
from geomoe.noise import image_noise
from geomoe.pipeline.tiles import Box
from geomoe.tasks.commit import commit

__all__ = [
    "LARGE",
    "TILE",
    "SourceImages",
    "SourceScores",
    "Told",
    "read_sources_part",
    "score_sources",
    "tiles_of",
]

Told = Literal["all", "scene", "nothing"]
"""What informed models are told of an image: its source and exactly how it was downsampled; what
``geomoe upscale`` would find of a scene of that sensor with these pixels; or nothing."""

LARGE, TILE = 128, 32
"""Low-resolution pixels: an image with more on one of its sides is scored in tiles of about so many."""
_BANDS = 3
_LEAST = 96
"""High-resolution pixels that the side of an image keeps where some of its pixels are not valid."""


@dataclass(frozen=True)
class SourceImages:
    """A part of a source in memory: images ``[3, H, W]`` with their paths below its folder."""

    source: Source
    images: list[tuple[str, Tensor]]


@dataclass(frozen=True)
class SourceScores:
    """Scores of one model on a part of one source, whose images were downsampled in one way.

    Attributes:
        weights, hash: name of the model's weights, and what tells them from all others.
        source: name of the source.
        sensor, gsd: of the source; None where it is not known.
        degradation: by which the images were downsampled.
        scores: by image, or by tile of one that is large.
        baseline: the same of bicubic upsampling.
        noise: of the low-resolution images, by image, in units of [0, 1], as it is estimated of scenes; of
            those that tell it.
        ranks: the metric by which models are compared.
        base: what the baseline is called.
    """

    weights: str
    hash: str
    source: str
    sensor: str | None
    degradation: str
    scores: ItemScores
    baseline: ItemScores
    gsd: float | None = None
    noise: dict[str, float] = field(default_factory=dict)
    ranks: str = "psnr"
    base: str = "bicubic"

    def measured(self, protocol: str) -> Measured:
        """As a card holds them."""
        overall = self.overall
        return Measured(
            data=self.source,
            sensor=self.sensor,
            gsd=self.gsd,
            degradation=self.degradation,
            noise=middle(list(self.noise.values())),
            protocol=protocol,
            images=overall.items,
            scores=rounded(overall.values),
            baseline=rounded(overall.baseline),
            date=datetime.now(UTC).date().isoformat(),
            commit=commit(),
            ranks=self.ranks,
        )

    @property
    def overall(self) -> Scores:
        """Means over images and tiles."""
        return mean_scores(list(next(iter(self.scores.values()))), self.scores, self.baseline)

    @cached_property
    def gain(self) -> Interval:
        """What is gained over bicubic: the mean, and its 95 % bootstrap interval over images and tiles."""
        better = measure(self.ranks).gain
        gains = [better(of[self.ranks], self.baseline[item][self.ranks]) for item, of in self.scores.items()]
        return bootstrap_interval(np.array(gains))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: means, the interval, and the scores by image."""
        gain = self.gain
        return {
            "weights": self.weights,
            "hash": self.hash,
            "source": self.source,
            "sensor": self.sensor,
            "degradation": self.degradation,
            **self.overall.as_dict(self.ranks),
            "gain_95": gain.ends,
            "by_item": self.scores,
            "baseline_by_item": self.baseline,
        }


def read_sources_part(
    sources: Sequence[Source],
    root: Path,
    part: Part,
    *,
    validation: float,
    limit: int | None = None,
    skip: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[SourceImages]:
    """A part of every source that has images; made surfaces are left out, of which nothing is held out.

    Args:
        sources: in the order of the result.
        root: of all sources.
        part: what is held out is ``test``.
        validation: share of what is not held out.
        limit: of a source with more images, so many that lie evenly among them.
        skip: whether images that cannot be read are left out.
        say: called with a line about them, and about the sources that are left out.

    Raises:
        GeomoeError: a source without images in this part, or nothing to score at all.
    """
    found = []
    for source in sources:
        if source.made:
            say(f"source {source.name}: made surfaces have no part that is held out; it is left out")
            continue
        images = read_part(
            source, root, part, bands=_BANDS, validation=validation, least=_LEAST, skip=skip, say=say
        )
        if not images:
            raise GeomoeError(f"source {source.name} has no image in its part {part}; choose another part")
        if limit is not None and len(images) > limit:
            images = [images[i * len(images) // limit] for i in range(limit)]
        found.append(SourceImages(source, images))
    if not found:
        raise GeomoeError("no source has images, so there is nothing to score")
    return found


def tiles_of(width: int, height: int, scale: int) -> list[Box]:
    """What is scored of an image that is so large, in high-resolution pixels: all of it, or tiles of it.

    A scene is one image, and one image is no sample. Nothing is left over: tiles are as equal as they can be.
    """
    if max(width, height) <= LARGE * scale:
        return [Box(0, 0, width, height)]
    xs, ys = (_edges(size, TILE * scale) for size in (width, height))
    return [Box(x, y, right - x, bottom - y) for y, bottom in ys for x, right in xs]


def _edges(size: int, side: int) -> list[tuple[int, int]]:
    count = max(1, round(size / side))
    edges = [round(size * i / count) for i in range(count + 1)]
    return list(pairwise(edges))


def score_sources(
    models: Sequence[LoadedModel],
    parts: Sequence[SourceImages],
    degradations: Sequence[str],
    *,
    protocol: str = "mfg_hmoe",
    told: Told = "all",
    device: str = "auto",
    precision: Precision = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> list[SourceScores]:
    """Scores of every model on every source under every degradation, in the order of sources.

    The images are super-resolved whole and scored, whole or by :func:`tiles_of`, as
    :func:`geomoe.evaluation.super_resolution.crops.score_crop` does. One band is shown to the model three
    times and its three results are averaged, as ``geomoe upscale`` does.

    Args:
        models: of one scale and three bands.
        parts: from :func:`read_sources_part`.
        degradations: names of docs/degradations.md.
        protocol: name of a :class:`geomoe.metrics.protocol.Protocol`.
        told: what informed models are told.
        device: of the models.
        precision: that they compute in.
        progress: called with images done and images in all.

    Raises:
        GeomoeError: models of several scales or another number of bands, unknown names, or images that
            cannot be downsampled or are too small to score.
    """
    scales = {model.contract.scale for model in models}
    if len(scales) != 1:
        raise GeomoeError(f"the models have scales {sorted(scales)}; score those of one scale at a time")
    for model in models:
        if model.contract.bands != _BANDS:
            raise GeomoeError(f"{model.name} takes {model.contract.bands} bands; sources are scored in three")
    rules, named = get_protocol(protocol), [get_degradation(name) for name in degradations]
    place, scale = pick_device(device), scales.pop()
    pick_precision(precision, place, measured=False)
    modules = [model.model.to(place) for model in models]
    total, done = sum(len(part.images) for part in parts) * len(named), 0
    results = []
    for part in parts:
        for degradation in named:
            rows = [_empty(model, part.source, degradation, rules) for model in models]
            for case in _cases(part, degradation, scale):
                noise = image_noise(case.low.numpy())
                for row, module, model in zip(rows, modules, models, strict=True):
                    known = case.known(told) if model.contract.informed else None
                    with computing_in(precision, place):
                        result = _upscaled(module, case.low, known, part.source, place)
                    _score(row, rules, result, case, scale)
                    row.noise.update({} if noise is None else {case.name: noise})
                done += 1
                if progress:
                    progress(done, total)
            results += rows
    return results


@dataclass(frozen=True)
class _Case:
    """An image to score: ``low`` and ``high`` are ``[3, H, W]`` in about [0, 1]."""

    name: str
    low: Tensor
    high: Tensor
    source: Source
    drawn: Degrader

    def known(self, told: Told) -> Known | None:
        if told == "nothing":
            return None
        if told == "all":
            return self.drawn.known(self.source.known)
        # rasterio, which comes with these, is wanted for nothing else that scores pictures.
        from geomoe.pipeline.choice import for_model
        from geomoe.raster.read.known import KnownScene
        from geomoe.raster.read.sensor import sensor_mtf

        sensor, gsd = self.source.sensor, self.source.gsd
        return for_model(KnownScene(sensor, gsd, sensor_mtf(sensor, gsd), image_noise(self.low.numpy())))


def _cases(part: SourceImages, degradation: Degrader, scale: int) -> Iterator[_Case]:
    for number, (name, image) in enumerate(part.images):
        drawn = degradation.drawn(number)
        try:
            low, high = degrade(image, scale, drawn)
        except GeomoeError as error:
            raise GeomoeError(f"source {part.source.name}, {name}: {error}") from error
        yield _Case(name, to_unit(low), to_unit(high), part.source, drawn)


def _empty(model: LoadedModel, source: Source, degradation: Degrader, rules: Protocol) -> SourceScores:
    told = (model.name, model.hash, source.name, source.sensor, degradation.name)
    return SourceScores(*told, {}, {}, source.gsd, ranks=rules.ranks)


def _upscaled(
    module: torch.nn.Module, low: Tensor, known: Known | None, source: Source, place: torch.device
) -> Tensor:
    told = {} if known is None else {"known": Known.batch([known]).to(place)}
    with torch.inference_mode():
        result: Tensor = module(low[None].to(place), **told)[0].float().cpu()
    return result.mean(0, keepdim=True).expand_as(result) if source.one_band else result


def _score(row: SourceScores, rules: Protocol, result: Tensor, case: _Case, scale: int) -> None:
    bicubic = interpolated(case.low[None], scale)[0]
    boxes = tiles_of(case.high.shape[2], case.high.shape[1], scale)
    for box in boxes:
        name = case.name if len(boxes) == 1 else f"{case.name} {box.x},{box.y}"
        ours, base = (score_crop(rules, image, case.high, scale, box) for image in (result, bicubic))
        if ours is None or base is None:
            raise GeomoeError(f"source {row.source}, {name}: too small an image to score")
        row.scores[name] = dict(zip(rules.metrics, ours, strict=True))
        row.baseline[name] = dict(zip(rules.metrics, base, strict=True))
