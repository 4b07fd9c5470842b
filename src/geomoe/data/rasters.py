"""Whole rasters as arrays to train on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.read.bands import learned_names, learning_bands, left_out
from geomoe.raster.read.radiometry import decide_radiometry
from geomoe.raster.read.sample import look
from geomoe.raster.read.scene import open_file
from geomoe.raster.read.validity import fill_invalid

__all__ = ["Grid", "read_reflectance", "read_scaled", "read_values", "write_raster"]

Grid = tuple[CRS | None, Affine | None]
"""Where a raster lies: its coordinates, and pixel corners to them."""


def read_scaled(
    path: Path, bands: int, names: str | None = None, max_pixels: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_], str | None, tuple[str, ...], str]:
    """Bands of a GeoTIFF (see `learning_bands`) in the range that models see at inference.

    Args:
        path: local GeoTIFF, small enough to be held in memory.
        bands: how many are wanted.
        names: of these bands, if not the usual ones.
        max_pixels: that it may have.

    Returns:
        ``[bands, H, W]`` float32, about 0 to 1, invalid pixels filled from valid neighbours; ``[H, W]``
        bool, where all bands are valid; which bands were left out, in words; names of those that were
        taken, see `learned_names`; and the file's type.

    Raises:
        GeomoeError: no GeoTIFF that can be used, one that is too large, or other bands than wanted.
    """
    with open_file(path) as scene:
        if max_pixels is not None and scene.width * scene.height > max_pixels:
            raise GeomoeError(
                f"{path} has {scene.width} x {scene.height} pixels, more than the {max_pixels:,} that one "
                "held in memory may have; cut it into pieces"
            )
        chosen = learning_bands(scene, bands, names)
        scene, sample = look(scene, chosen)
        radiometry = decide_radiometry(scene.dtype, sample)
        data, valid = scene.read(Window(0, 0, scene.width, scene.height), chosen)
        everywhere: NDArray[np.bool_] = np.all(valid, axis=0)
        shown = fill_invalid(radiometry.to_model(data), valid)
        return shown, everywhere, left_out(scene, chosen), learned_names(scene, chosen), scene.dtype


def read_values(path: Path, bands: int, names: str | None = None) -> tuple[NDArray[np.float32], bool]:
    """``bands`` data bands of a GeoTIFF (see `learning_bands`) in its own units; whether these are integers.

    Args:
        path: local GeoTIFF, small enough to be held in memory.
        bands: how many are wanted.
        names: of these bands, if not the usual ones.

    Returns:
        ``[bands, H, W]`` float32, and whether the file holds integers.

    Raises:
        GeomoeError: no GeoTIFF that can be used, fewer bands than wanted, or pixels that are not valid.
    """
    with open_file(path) as scene:
        data, valid = scene.read(Window(0, 0, scene.width, scene.height), learning_bands(scene, bands, names))
        if not valid.all():
            raise GeomoeError(f"{path} has {int((~valid).sum())} invalid values; expected none")
        return data, not np.issubdtype(scene.dtype, np.floating)


def read_reflectance(
    path: Path, names: Sequence[str], scale: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Grid]:
    """Named bands of a GeoTIFF as reflectances, where all of them are valid, and where it lies.

    Args:
        path: local GeoTIFF, small enough to be held in memory.
        names: of the bands, in the order wanted.
        scale: reflectance of one step of whole numbers, where the file says no other one.

    Returns:
        ``[C, H, W]`` float32, 0 where a band is not valid; ``[H, W]`` bool; and the grid.

    Raises:
        GeomoeError: no GeoTIFF that can be used, or one without these bands.
    """
    with open_file(path) as scene:
        chosen = learning_bands(scene, len(names), names)
        data, valid = scene.read(Window(0, 0, scene.width, scene.height), chosen)
        steps, zero = (np.array([of[band - 1] for band in chosen]) for of in (scene.scales, scene.offsets))
        if (steps == 1).all() and np.issubdtype(scene.dtype, np.integer):
            steps = np.full(len(names), scale)
        everywhere: NDArray[np.bool_] = np.all(valid, axis=0)
        scaled = data * steps[:, None, None] + zero[:, None, None]
        return np.where(everywhere, scaled, 0).astype(np.float32), everywhere, (scene.crs, scene.transform)


def write_raster(
    path: Path, data: NDArray[np.uint8] | NDArray[np.uint16], names: Sequence[str], grid: Grid
) -> None:
    """``[C, H, W]`` as a GeoTIFF whose bands have names, 0 being no measurement."""
    crs, transform = grid
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a grid may be unknown
        with rasterio.open(
            path, "w", driver="GTiff", dtype=data.dtype, count=len(data), height=data.shape[1],
            width=data.shape[2], crs=crs, transform=transform, nodata=0, compress="deflate", predictor=2,
            photometric="minisblack",  # or four bands of 8 bits would be colours and a mask
        ) as file:  # fmt: skip
            file.write(data)
            file.descriptions = tuple(names)
