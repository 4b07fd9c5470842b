"""Whole rasters as arrays to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.bands import select_bands
from geomoe.raster.radiometry import decide_radiometry
from geomoe.raster.sample import sample_scene
from geomoe.raster.scene import open_scene
from geomoe.raster.validity import fill_invalid

__all__ = ["read_scaled"]


def read_scaled(path: Path, bands: int) -> NDArray[np.float32]:
    """The first ``bands`` data bands of a GeoTIFF in the range that models see at inference.

    Args:
        path: local GeoTIFF, small enough to be held in memory.
        bands: how many are wanted.

    Returns:
        ``[bands, H, W]`` float32, about 0 to 1; invalid pixels are filled from valid neighbours.

    Raises:
        GeomoeError: no GeoTIFF that can be used, or fewer bands than wanted.
    """
    with open_scene(path) as scene:
        chosen = select_bands(scene, None, bands)
        if len(chosen) < bands:
            raise GeomoeError(f"{path} has {len(chosen)} bands of data, {bands} are wanted")
        chosen = chosen[:bands]
        radiometry = decide_radiometry(scene.dtype, sample_scene(scene, chosen))
        data, valid = scene.read(Window(0, 0, scene.width, scene.height), chosen)
        return fill_invalid(radiometry.to_model(data), valid)
