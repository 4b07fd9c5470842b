"""Burned areas that are made: a scene of before, the same scene of after with fires in it, and what deceives.

The scene of before is given. Of it are made, in this order: fires where there is vegetation, by reflectances
that change with a smooth severity; fields that are harvested, whose NDVI falls while the near infrared stays
what it is; shadows of clouds; and then, everywhere, a gain, an offset and noise for each band, as between two
dates. All is drawn from a seed. Assumed: the number and size of shadows, the sides of fields, and edges whose
waves have amplitudes that fall with their frequency.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from geomoe.errors import GeomoeError
from geomoe.files import new_folder

__all__ = ["BANDS", "KINDS", "Fires", "burn", "make_burns", "ndvi"]

BANDS = ("red", "green", "blue", "nir")
"""Of both dates, in this order."""
KINDS = ("unchanged", "burned", "harvested", "in shadow")
"""What a pixel is, in ``burns_kinds.png``; the truth ``burns_gt.png`` is white where it is the second."""

_VEGETATION = 0.35
"""NDVI above which there is something to burn, or to harvest."""
_SCALE = 1e-4
"""Reflectance of one step of whole numbers, where a scene does not say another one."""


@dataclass(frozen=True)
class Fires:
    """How much is made.

    Attributes:
        fires: how many.
        radius: of a fire in pixels, from and to.
        fields: that are harvested.
        side: of a field in pixels, from and to.
        shadows: of clouds.
        shade: radius of a shadow in pixels, from and to.
    """

    fires: int = 25
    radius: tuple[float, float] = (10, 80)
    fields: int = 10
    side: tuple[float, float] = (20, 60)
    shadows: int = 6
    shade: tuple[float, float] = (15, 40)


def ndvi(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """``[H, W]`` of reflectances ``[4, H, W]`` in the order of :data:`BANDS`; 0 where both bands are 0."""
    red, nir = image[0], image[3]
    total = nir + red
    index: NDArray[np.floating] = np.divide(nir - red, total, out=np.zeros_like(total), where=total > 0)
    return index


def burn(
    before: NDArray[np.float32], rng: np.random.Generator, how: Fires | None = None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The scene after the fires, ``[4, H, W]``, and what each pixel is, ``[H, W]``, a place in :data:`KINDS`.

    Args:
        before: reflectances ``[4, H, W]`` in the order of :data:`BANDS`.
        rng: draws all that is drawn.
        how: how much is made.

    Raises:
        GeomoeError: a scene in which there is nothing to burn.
    """
    how = how or Fires()
    after, shape, green = before.astype(np.float32), before.shape[1:], ndvi(before) > _VEGETATION
    if not green.any():
        raise GeomoeError(f"no pixel has an NDVI above {_VEGETATION}: there is nothing to burn")
    burned = np.logical_or.reduce(list(_stars(shape, how.fires, how.radius, green, rng))) & green
    smooth = gaussian_filter(rng.normal(size=shape), 8)
    severity = (0.3 + 0.7 * (smooth - smooth.min()) / max(np.ptp(smooth), 1e-9)) * burned
    change = np.stack([0.25 * severity, -0.2 * severity, -0.2 * severity, -0.6 * severity])
    after = after * (1 + change)
    after = after + 0.1 * severity * (0.04 - after)  # char

    cut = np.logical_or.reduce(list(_fields(shape, how, green & ~burned, rng))) & green & ~burned
    less = ndvi(before) - 0.3
    after[0] = np.where(cut, after[3] * (1 - less) / (1 + less), after[0])
    dark = np.logical_or.reduce(list(_stars(shape, how.shadows, how.shade, np.ones(shape, bool), rng)))
    after = np.where(dark, 0.6 * after, after)

    gain, offset = rng.uniform(0.92, 1.08, (4, 1, 1)), rng.uniform(-0.01, 0.01, (4, 1, 1))
    after = after * gain + offset + rng.normal(0, 0.004, after.shape)
    kinds = np.where(burned, 1, np.where(cut, 2, np.where(dark, 3, 0)))
    return after.astype(np.float32), kinds.astype(np.uint8)


def _centre(where: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
    row, column = divmod(int(rng.choice(np.flatnonzero(where))), int(where.shape[1]))
    return row, column


def _stars(
    shape: tuple[int, ...],
    number: int,
    radius: tuple[float, float],
    where: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Iterator[NDArray[np.bool_]]:
    """Shapes that are all seen from their middle, with rough edges; the middles lie ``where`` they may."""
    yield np.zeros(shape, bool)
    rows, columns = np.indices(shape)
    waves = np.arange(2, 33)
    for _ in range(number):
        y, x = _centre(where, rng)
        angle = np.arctan2(rows - y, columns - x)
        phase, height = rng.uniform(0, 2 * np.pi, len(waves)), rng.normal(0, 0.35, len(waves)) / waves
        turns = np.linspace(-np.pi, np.pi, 721)
        edge = 1 + (height[:, None] * np.cos(waves[:, None] * turns + phase[:, None])).sum(0)
        reach = rng.uniform(*radius) * np.interp(angle, turns, edge.clip(0.3, 1.7))
        yield np.hypot(rows - y, columns - x) <= reach


def _fields(
    shape: tuple[int, ...], how: Fires, where: NDArray[np.bool_], rng: np.random.Generator
) -> Iterator[NDArray[np.bool_]]:
    """Rectangles that lie in any direction."""
    yield np.zeros(shape, bool)
    rows, columns = np.indices(shape)
    for _ in range(how.fields if where.any() else 0):
        (y, x), turn = _centre(where, rng), rng.uniform(0, np.pi)
        long, wide = rng.uniform(*how.side, 2) / 2
        along = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
        across = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
        yield (np.abs(along) <= long) & (np.abs(across) <= wide)


def make_burns(folder: Path, scene: Path, seed: int = 0, how: Fires | None = None) -> None:
    """Write the pair ``burns_1.tif``, ``burns_2.tif``, its truth and the kinds of pixels into a new folder.

    Args:
        folder: that is made; it is there when all of it is.
        scene: of before, a GeoTIFF with bands that are red, green, blue and near infrared.
        seed: of all that is drawn.
        how: how much is made.

    Raises:
        GeomoeError: something is there already, a scene that cannot be used, or that it cannot be written.
    """
    from geomoe.data.rasters import read_reflectance, write_raster  # rasterio is wanted for these alone

    before, valid, grid = read_reflectance(scene, BANDS, _SCALE)
    after, kinds = burn(before, np.random.default_rng(seed), how)
    kinds[~valid] = 0
    with new_folder(folder) as part:
        for date, image in ((1, before), (2, after)):
            steps = np.where(valid, np.rint(image / _SCALE).clip(1, 65535), 0).astype(np.uint16)
            write_raster(part / f"burns_{date}.tif", steps, BANDS, grid)
        Image.fromarray(np.where(kinds == 1, np.uint8(255), np.uint8(0))).save(part / "burns_gt.png")
        Image.fromarray(kinds).save(part / "burns_kinds.png")
