"""Whole rasters as arrays to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.bands import learning_bands
from geomoe.raster.radiometry import decide_radiometry
from geomoe.raster.sample import look
from geomoe.raster.scene import open_file
from geomoe.raster.validity import fill_invalid

__all__ = ["read_scaled", "read_values"]


def read_scaled(path: Path, bands: int) -> NDArray[np.float32]:
    """``bands`` data bands of a GeoTIFF (see `learning_bands`) in the range that models see at inference.

    Args:
        path: local GeoTIFF, small enough to be held in memory.
        bands: how many are wanted.

    Returns:
        ``[bands, H, W]`` float32, about 0 to 1; invalid pixels are filled from valid neighbours.

    Raises:
        GeomoeError: no GeoTIFF that can be used, or fewer bands than wanted.
    """
    with open_file(path) as scene:
        chosen = learning_bands(scene, bands)
        scene, sample = look(scene, chosen)
        radiometry = decide_radiometry(scene.dtype, sample)
        data, valid = scene.read(Window(0, 0, scene.width, scene.height), chosen)
        return fill_invalid(radiometry.to_model(data), valid)


def read_values(path: Path, bands: int) -> tuple[NDArray[np.float32], bool]:
    """``bands`` data bands of a GeoTIFF (see `learning_bands`) in its own units; whether these are integers.

    Args:
        path: local GeoTIFF, small enough to be held in memory.
        bands: how many are wanted.

    Returns:
        ``[bands, H, W]`` float32, and whether the file holds integers.

    Raises:
        GeomoeError: no GeoTIFF that can be used, fewer bands than wanted, or pixels that are not valid.
    """
    with open_file(path) as scene:
        data, valid = scene.read(Window(0, 0, scene.width, scene.height), learning_bands(scene, bands))
        if not valid.all():
            raise GeomoeError(f"{path} has {int((~valid).sum())} invalid values; expected none")
        return data, not np.issubdtype(scene.dtype, np.floating)
