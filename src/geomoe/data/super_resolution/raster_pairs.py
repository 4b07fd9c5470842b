"""Two scenes of one place on grids that fit: which pixels they share, and reading them as a pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.read.bands import learning_bands
from geomoe.raster.read.env import gdal_env, gdal_errors
from geomoe.raster.read.radiometry import decide_radiometry
from geomoe.raster.read.sample import look
from geomoe.raster.read.scene import open_file

__all__ = ["SCALES", "Footprint", "PairOfScenes", "common_area", "footprint", "read_pair"]

SCALES = (2, 3, 4, 8)
_SAME = 0.01  # relative: a ratio of pixel sizes that is further from a whole number is meant otherwise


@dataclass(frozen=True)
class Footprint:
    """Where a scene lies.

    Attributes:
        path: of the scene.
        width, height: in pixels.
        transform: pixel corner (column, row) to ground.
        crs: of the ground coordinates.
        dtype: of its values.
        acquired: when it was taken, as :class:`geomoe.raster.Scene` has it.
    """

    path: Path
    width: int
    height: int
    transform: Affine
    crs: CRS
    dtype: str
    acquired: str | None = None

    def bounds(self, crs: CRS) -> tuple[float, float, float, float]:
        """Least x and y, greatest x and y of the corners in another CRS; infinite where it has no place."""
        xs, ys = _to_crs(self, crs)
        return min(xs), min(ys), max(xs), max(ys)


def footprint(path: Path) -> Footprint:
    """Where a GeoTIFF lies; raises GeomoeError where it does not say so by a transform and a CRS."""
    with open_file(path) as scene:
        if scene.transform is None or scene.crs is None:
            raise GeomoeError(
                f"{path} has no grid (transform and CRS), by which its counterpart could be found"
            )
        return Footprint(
            path, scene.width, scene.height, scene.transform, scene.crs, scene.dtype, scene.acquired
        )


def _to_crs(of: Footprint, crs: CRS) -> tuple[list[float], list[float]]:
    """The corners of a scene on the ground, in ``crs``."""
    corners = [(0, 0), (of.width, 0), (0, of.height), (of.width, of.height)]
    points = [of.transform * corner for corner in corners]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if crs == of.crs:
        return xs, ys
    with gdal_env(), gdal_errors(f"cannot bring {of.path} to {crs}", "check its CRS"):
        xs, ys = transform_points(of.crs, crs, xs, ys)
    return list(xs), list(ys)


@dataclass(frozen=True)
class PairOfScenes:
    """The area that two scenes share, in whole pixels of both.

    Attributes:
        low, high: the scenes.
        scale: high-resolution pixels along a low-resolution one.
        low_window, high_window: the area; the second is ``scale`` times the first.
    """

    low: Path
    high: Path
    scale: int
    low_window: Window
    high_window: Window


def common_area(low: Footprint, high: Footprint, tolerance: float) -> PairOfScenes | None:
    """What two scenes share, or ``None`` where they do not share a whole low-resolution pixel.

    Nothing is resampled: the corners of the high-resolution scene are brought to the pixels of the other one,
    through its CRS if they differ, and must all fall where a grid that is finer by a whole scale has them.

    Args:
        low: where the low-resolution scene lies.
        high: where the high-resolution one lies.
        tolerance: by how much a corner may be off, in high-resolution pixels.

    Raises:
        GeomoeError: where they overlap and their pixel sizes have no ratio of 2, 3, 4 or 8, or their grids
            are further apart than ``tolerance``.
    """
    xs, ys = _to_crs(high, low.crs)
    if not np.isfinite([*xs, *ys]).all():
        return None
    placed = [~low.transform * point for point in zip(xs, ys, strict=True)]  # in low-resolution pixels
    columns, rows = zip(*placed, strict=True)
    if max(columns) <= 0 or max(rows) <= 0 or min(columns) >= low.width or min(rows) >= low.height:
        return None
    (x0, y0), (x1, _), (_, y2), _ = placed
    ratios = [
        size / span if span else math.inf for size, span in ((high.width, x1 - x0), (high.height, y2 - y0))
    ]
    scale = round(ratios[0]) if math.isfinite(ratios[0]) else 0
    names = f"{low.path.name} and {high.path.name}"
    if scale not in SCALES or any(abs(ratio / scale - 1) > _SAME for ratio in ratios):
        raise GeomoeError(
            f"the pixel sizes of {names} have a ratio of {ratios[0]:.4g} along rows and {ratios[1]:.4g} "
            f"along columns; expected one of {', '.join(map(str, SCALES))} along both, warp one of them"
        )
    left, top = round(x0 * scale), round(y0 * scale)
    ideal = [
        (left, top),
        (left + high.width, top),
        (left, top + high.height),
        (left + high.width, top + high.height),
    ]
    off = max(math.dist((x * scale, y * scale), corner) for (x, y), corner in zip(placed, ideal, strict=True))
    if off > tolerance:
        raise GeomoeError(
            f"the grids of {names} are off by {off:.3g} high-resolution pixels, more than the tolerance of "
            f"{tolerance:g}; warp one onto the other's grid, or allow it with a larger tolerance"
        )
    first_column, first_row = (max(0, math.ceil(start / scale)) for start in (left, top))
    columns_shared = min(low.width, (left + high.width) // scale) - first_column
    rows_shared = min(low.height, (top + high.height) // scale) - first_row
    if columns_shared < 1 or rows_shared < 1:
        return None
    return PairOfScenes(
        low.path,
        high.path,
        scale,
        Window(first_column, first_row, columns_shared, rows_shared),
        Window(
            first_column * scale - left, first_row * scale - top, columns_shared * scale, rows_shared * scale
        ),
    )


def read_pair(
    pair: PairOfScenes, bands: int, names: str | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """The shared area of two scenes, both in the range that models see at inference.

    That range is the low-resolution scene's alone, as at inference; the other one goes through the same map,
    so both must be in the same units.

    Args:
        pair: from :func:`common_area`.
        bands: how many are wanted, of both as `learning_bands` chooses them.
        names: of these bands, if not the usual ones.

    Returns:
        low ``[bands, h, w]``, high ``[bands, s h, s w]``, and ``[h, w]`` bool: where a low-resolution pixel
        and all high-resolution ones inside it are valid.

    Raises:
        GeomoeError: too few bands, types that differ, or a damaged file.
    """
    with open_file(pair.low) as low, open_file(pair.high) as high:
        if low.dtype != high.dtype:
            raise GeomoeError(
                f"{pair.low.name} is {low.dtype} and {pair.high.name} is {high.dtype}; a pair must be of one "
                "type and in the same units, convert one of them"
            )
        chosen = learning_bands(low, bands, names)
        low, sample = look(low, chosen)
        radiometry = decide_radiometry(low.dtype, sample)
        small, small_valid = low.read(pair.low_window, chosen)
        chosen = learning_bands(high, bands, names)
        large, large_valid = look(high, chosen)[0].read(pair.high_window, chosen)
    s = pair.scale
    height, width = small.shape[1:]
    fine = large_valid.all(axis=0).reshape(height, s, width, s)
    valid: NDArray[np.bool_] = np.logical_and(small_valid.all(axis=0), fine.all(axis=(1, 3)))
    return radiometry.to_model(small), radiometry.to_model(large), valid
