"""Whole rasters as arrays to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.read.bands import learned_names, learning_bands, left_out
from geomoe.raster.read.radiometry import decide_radiometry
from geomoe.raster.read.sample import look
from geomoe.raster.read.scene import open_file
from geomoe.raster.read.validity import fill_invalid

__all__ = ["read_scaled", "read_values"]


def read_scaled(
    path: Path, bands: int, names: str | None = None, max_pixels: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_], str | None, tuple[str, ...]]:
    """Bands of a GeoTIFF (see `learning_bands`) in the range that models see at inference.

    Args:
        path: local GeoTIFF, small enough to be held in memory.
        bands: how many are wanted.
        names: of these bands, if not the usual ones.
        max_pixels: that it may have.

    Returns:
        ``[bands, H, W]`` float32, about 0 to 1, invalid pixels filled from valid neighbours; ``[H, W]``
        bool, where all bands are valid; which bands were left out, in words; and names of those that were
        taken, see `learned_names`.

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
        return shown, everywhere, left_out(scene, chosen), learned_names(scene, chosen)


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
