"""A hyperspectral cube in a file of NumPy's, opened as a scene."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.raster.read.env import gdal_env, gdal_errors
from geomoe.raster.read.scene import DTYPES, Scene, open_file

__all__ = ["MAX_BYTES", "open_cube", "read_arrays"]

MAX_BYTES = 2**32
"""That a file may have once it is unpacked; a small one may claim to hold many more."""


def read_arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """Arrays of a file ``.npz``, by their names.

    Raises:
        GeomoeError: a file that cannot be read or lacks one of them, or is too large to be held in memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise GeomoeError(
                f"{path} holds {size:,} bytes, more than the {MAX_BYTES:,} that are held in memory"
            )
        with np.load(path, allow_pickle=False) as held:
            for name in names:
                if name not in held.files:
                    raise GeomoeError(f"{path} holds no {name!r}, but {', '.join(held.files) or 'nothing'}")
            arrays = [held[name] for name in names]
            if not all(isinstance(array, np.ndarray) for array in arrays):
                raise ValueError("it holds no arrays")
            return arrays
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise GeomoeError(f"{path} is not a cube that can be read: {error}") from error


@contextmanager
def open_cube(path: Path) -> Iterator[Scene]:
    """Open the array ``cube`` ``[H, W, bands]`` of a file ``.npz``, which nothing places on the ground.

    It is unpacked into a temporary GeoTIFF, from which windows are read.

    Raises:
        GeomoeError: as :func:`read_arrays`, or an array that is no cube of numbers.
    """
    [cube] = read_arrays(path, "cube")
    if cube.ndim != 3 or not cube.size or cube.dtype.name not in DTYPES:
        raise GeomoeError(
            f"{path} holds a cube {list(cube.shape)} of {cube.dtype}; expected [H, W, bands] of one of "
            f"{', '.join(DTYPES)}"
        )
    height, width, bands = cube.shape
    with tempfile.TemporaryDirectory(prefix="geomoe-", ignore_cleanup_errors=True) as folder:
        place = Path(folder) / f"{path.stem}.tif"
        with gdal_errors(f"{path.name} cannot be unpacked", "make room, or set TMPDIR"), gdal_env():
            with rasterio.open(
                place, "w", driver="GTiff", width=width, height=height, count=bands, dtype=cube.dtype.name,
                tiled=True, blockxsize=256, blockysize=256, interleave="band", photometric="MINISBLACK",
                alpha="NO", bigtiff="IF_SAFER",
            ) as file:  # fmt: skip
                file.write(np.moveaxis(cube, 2, 0))
            del cube
        with open_file(place) as scene:
            yield replace(scene, path=path)
