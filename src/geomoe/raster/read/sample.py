"""A bounded, regular sample of a scene's pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.noise import EvenBlocks
from geomoe.raster.read.classes import few_values
from geomoe.raster.read.fill import find_fill
from geomoe.raster.read.scene import Scene

__all__ = ["EmptyError", "SceneSample", "look", "refuse_empty", "sample_scene"]

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
        noise: standard deviation of each band's noise, in source units, by blocks of what was read on the
            way; ``None`` where none tells. See :mod:`geomoe.noise`.
    """

    values: tuple[NDArray[np.float32], ...]
    valid_share: float
    noise: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class _Grid:
    """Every k-th pixel of every k-th row.

    Attributes:
        bands: ``[h, w]`` float32 each.
        valid: ``[h, w]`` each.
        seen: ``[h, w]``, what of it was read.
        step: k; the first pixel is ``k // 2``.
        blocks: of neighbouring pixels, for the noise.
    """

    bands: list[NDArray[np.float32]]
    valid: list[NDArray[np.bool_]]
    seen: NDArray[np.bool_]
    step: int
    blocks: EvenBlocks


def sample_scene(scene: Scene, bands: Sequence[int]) -> SceneSample:
    """Take every k-th pixel of every k-th row, read at full resolution (overviews may be averages).

    About a million pixels a band at most, sixteen million in all; the same ones every time. A scene of
    more than about a thousand chunks is sampled from a regular subset of them.

    Raises:
        GeomoeError: if no pixel of the scene is valid in these bands, which takes a full scan to say.
    """
    return _sample(scene, bands, _read_grid(scene, bands))


def look(scene: Scene, bands: Sequence[int]) -> tuple[Scene, SceneSample]:
    """The sample of a scene, and the scene with fill that it does not declare taken for nodata.

    That is one value in all of these bands over a large connected area that touches the border. A scene that
    says itself what is valid, or whose user does, is left as it is; an area that a mask or alpha band leaves
    over is told. Costs no reading beyond the sample's.

    Raises:
        GeomoeError: as `sample_scene`.
    """
    grid = _read_grid(scene, bands)
    if scene.nodata_by == "scene" and scene.nodata is None and grid.seen.any():
        scene = _filled(scene, bands, grid)
    sample = _sample(scene, bands, grid)
    if np.issubdtype(scene.dtype, np.integer):
        few = [(band, few_values(values)) for band, values in zip(bands, sample.values, strict=True)]
        notes = [
            f"band {band} has {count} different values alone: if these are classes, leave it out, as new "
            "ones come about between them"
            for band, count in few
            if count
        ]
        scene = replace(scene, notes=(*scene.notes, *notes))
    return scene, sample


def _filled(scene: Scene, bands: Sequence[int], grid: _Grid) -> Scene:
    """The scene with its fill as nodata, which is taken out of the grid; as it is where there is none."""
    valid = np.logical_and.reduce(grid.valid)  # [h, w]
    fill = find_fill(grid.bands, valid, grid.seen, whole=np.issubdtype(scene.dtype, np.integer))
    if fill is None:
        return scene
    filled = np.logical_and.reduce([band == np.float32(fill.value) for band in grid.bands])
    value = _exactly(scene, bands, grid, filled)
    what = f"{fill.share:.1%} of pixels are {value:g} in all bands, many of them in one area at the border"
    if fill.measured or scene.validity in ("mask", "alpha"):  # which say themselves what is valid
        note = f"{what}; taken as measured: if they hold no data, give --nodata {value:g}"
        return replace(scene, notes=(*scene.notes, note))
    note = f"{what}: taken for pixels without data; if they were measured, give --nodata none"
    for good in grid.valid:
        good &= ~filled
    return replace(scene, nodata=value, nodata_by="area", validity="nodata", notes=(*scene.notes, note))


def _exactly(scene: Scene, bands: Sequence[int], grid: _Grid, filled: NDArray[np.bool_]) -> float:
    """The value of a fill in the scene's type, of which float32 may be a rounding."""
    row, column = (int(place) * grid.step + grid.step // 2 for place in np.argwhere(filled)[0])
    return scene.value(column, row, bands[0])


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


def _read_grid(scene: Scene, bands: Sequence[int]) -> _Grid:
    budget = min(_PIXELS_PER_BAND, max(1, _PIXELS_IN_ALL // len(bands)))
    step = max(1, math.ceil(math.sqrt(scene.width * scene.height / budget)))
    first = step // 2
    shape = tuple(max(0, -(-(side - first) // step)) for side in (scene.height, scene.width))
    windows = _every(_chunks(scene, len(bands)))
    grid = _Grid(
        [np.zeros(shape, dtype=np.float32) for _ in bands],
        [np.zeros(shape, dtype=np.bool_) for _ in bands],
        np.zeros(shape, dtype=np.bool_),
        step,
        EvenBlocks(len(bands), len(windows)),
    )
    for window in windows:
        rows = slice((first - window.row_off) % step, None, step)
        columns = slice((first - window.col_off) % step, None, step)
        if rows.start >= window.height or columns.start >= window.width:
            continue
        data, valid = scene.read(window, bands)
        grid.blocks.add(data, valid)
        data, valid = data[:, rows, columns], valid[:, rows, columns]
        top, left = (window.row_off + rows.start) // step, (window.col_off + columns.start) // step
        place = slice(top, top + data.shape[1]), slice(left, left + data.shape[2])
        grid.seen[place] = True
        for band, good, values, judged in zip(grid.bands, grid.valid, data, valid, strict=True):
            band[place], good[place] = values, judged
    return grid


def _sample(scene: Scene, bands: Sequence[int], grid: _Grid) -> SceneSample:
    """What is valid of a grid, whose bands are given up."""
    somewhere = np.logical_or.reduce(grid.valid).sum()
    share = float(somewhere / grid.seen.sum()) if grid.seen.any() else 0.0
    values = []
    for good in grid.valid:
        values.append(grid.bands.pop(0)[good])  # one by one, so that memory does not double
    sample = SceneSample(tuple(values), share, grid.blocks.noise())
    if all(v.size for v in values):
        return sample
    # A band's valid pixels may be rare enough to slip through the grid.
    return _completed(scene, bands, sample)


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
    return SceneSample(tuple(values), sample.valid_share or valid_seen / seen, sample.noise)


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
