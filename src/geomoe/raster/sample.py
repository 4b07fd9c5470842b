"""A bounded, regular sample of a scene's pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.scene import Scene

__all__ = ["EmptyError", "SceneSample", "refuse_empty", "sample_scene"]

_PIXELS_PER_BAND = 1_000_000
_PIXELS_IN_ALL = 16_000_000
_CHUNK_PIXELS = 2**22
_LOOK_PIXELS = 2**18
_MAX_CHUNKS = 1024


class EmptyError(GeomoeError):
    """A scene without a valid pixel."""


@dataclass(frozen=True)
class SceneSample:
    """Pixels of a regular grid over a scene.

    Attributes:
        values: for each band, ``[n]`` float32 in source units, valid pixels alone; ``n`` is 0 only for a
            band without any.
        valid_share: share of sampled pixels, 0 to 1, that are valid in at least one band.
    """

    values: tuple[NDArray[np.float32], ...]
    valid_share: float


def sample_scene(scene: Scene, bands: Sequence[int]) -> SceneSample:
    """Take every k-th pixel of every k-th row, read at full resolution (overviews may be averages).

    About a million pixels a band at most, sixteen million in all; the same ones every time. A scene of
    more than about a thousand chunks is sampled from a regular subset of them.

    Raises:
        EmptyError: if no pixel of the scene is valid in these bands, which takes a full scan to say.
    """
    budget = min(_PIXELS_PER_BAND, max(1, _PIXELS_IN_ALL // len(bands)))
    step = max(1, math.ceil(math.sqrt(scene.width * scene.height / budget)))
    sample = _collect(scene, bands, _every(_chunks(scene, len(bands))), step)
    if all(v.size for v in sample.values):
        return sample
    # A band's valid pixels may be rare enough to slip through the grid.
    return _completed(scene, bands, sample)


def refuse_empty(scene: Scene, bands: Sequence[int]) -> None:
    """Raise EmptyError if no pixel of the scene is valid in these bands.

    Looks from the middle outwards, and so takes long only of a scene that is empty, or nearly.
    """
    chunks = _chunks(scene, len(bands), _LOOK_PIXELS)
    middle = len(chunks) // 2
    for number in sorted(range(len(chunks)), key=lambda number: abs(number - middle)):
        if scene.read(chunks[number], bands)[1].any():
            return
    raise _empty(scene)


def _empty(scene: Scene) -> EmptyError:
    return EmptyError(
        f"{scene.path.name} has no valid pixel in the chosen bands (all are nodata, masked or NaN); "
        "check its nodata value and mask"
    )


def _collect(scene: Scene, bands: Sequence[int], chunks: Sequence[Window], step: int) -> SceneSample:
    parts: list[list[NDArray[np.float32]]] = [[] for _ in bands]
    seen = valid_seen = 0
    first = step // 2
    for window in chunks:
        rows = slice((first - window.row_off) % step, None, step)
        columns = slice((first - window.col_off) % step, None, step)
        if rows.start >= window.height or columns.start >= window.width:
            continue
        data, valid = scene.read(window, bands)
        data, valid = data[:, rows, columns], valid[:, rows, columns]
        seen += valid[0].size
        valid_seen += int(valid.any(axis=0).sum())
        for part, band, good in zip(parts, data, valid, strict=True):
            part.append(band[good])
    empty = np.empty(0, dtype=np.float32)
    return SceneSample(
        tuple(np.concatenate([empty, *part]) for part in parts), valid_seen / seen if seen else 0.0
    )


def _completed(scene: Scene, bands: Sequence[int], sample: SceneSample) -> SceneSample:
    """Scan the scene until every band that the grid missed has some values; a band may have none at all."""
    values = list(sample.values)
    seen = valid_seen = 0
    for window in _chunks(scene, len(bands)):
        data, valid = scene.read(window, bands)
        seen += valid[0].size
        valid_seen += int(valid.any(axis=0).sum())
        values = [v if v.size else band[good] for v, band, good in zip(values, data, valid, strict=True)]
        if all(v.size for v in values):
            break
    if not any(v.size for v in values):
        raise _empty(scene)
    return SceneSample(tuple(values), sample.valid_share or valid_seen / seen)


def _chunks(scene: Scene, bands: int, pixels: int = _CHUNK_PIXELS) -> list[Window]:
    """Windows that cover the scene, bounded in pixels, and made of whole blocks where these are smaller."""
    budget = max(1, pixels // bands)
    rows, columns = scene.block
    wide = min(scene.width, budget, columns * max(1, math.isqrt(budget) // columns))
    high = min(scene.height, max(1, budget // wide), rows * max(1, budget // wide // rows))
    return [
        Window(x, y, min(wide, scene.width - x), min(high, scene.height - y))
        for y in range(0, scene.height, high)
        for x in range(0, scene.width, wide)
    ]


def _every(chunks: list[Window]) -> list[Window]:
    stride = math.ceil(len(chunks) / _MAX_CHUNKS)
    return chunks[stride // 2 :: stride]
