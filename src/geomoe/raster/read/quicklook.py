"""A class map downsampled, to be looked at, and what is on all of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.raster.read.classes import ClassValue
from geomoe.raster.read.env import gdal_env, gdal_errors
from geomoe.raster.read.scene import open_file

__all__ = ["class_counts", "quicklook"]


def quicklook(path: Path, side: int) -> tuple[NDArray[np.uint8], tuple[ClassValue, ...]]:
    """A class map that geomoe wrote, ``[h, w]``, at most ``side`` each way, by its overviews; its classes.

    Raises:
        GeomoeError: a file that cannot be read, or is no class map with a legend.
    """
    with open_file(path) as scene:
        legend = scene.tags.get("GEOMOE_LEGEND", "{}")
        step = math.ceil(max(scene.width, scene.height) / side)
        shape = (-(-scene.height // step), -(-scene.width // step))
    with gdal_errors(f"{path.name} cannot be read", "write it again"), gdal_env():
        try:
            with rasterio.open(path, driver="GTiff", sharing=False) as source:
                colours = source.colormap(1)
                data: NDArray[np.uint8] = source.read(1, out_shape=shape)
            named = {int(value): str(name) for value, name in json.loads(legend)["classes"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GeomoeError(f"{path.name} is not a map of classes that geomoe wrote") from error
    hues = {value: "#" + bytes(colours[value][:3]).hex() for value in named}
    return data, tuple(ClassValue(value, named[value], hues[value]) for value in sorted(named))


def class_counts(path: Path) -> NDArray[np.int64]:
    """How many pixels of a class map have each value, ``[256]``; of all pixels, which no overview tells.

    Raises:
        GeomoeError: a file that cannot be read.
    """
    counts = np.zeros(256, np.int64)
    with (
        gdal_errors(f"{path.name} cannot be read", "write it again"),
        gdal_env(),
        rasterio.open(path, driver="GTiff", sharing=False) as source,
    ):
        for _, window in source.block_windows(1):
            counts += np.bincount(source.read(1, window=window).ravel(), minlength=256)
    return counts
