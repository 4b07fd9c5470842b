"""A class map that geomoe wrote, strip by strip: its memory is that of a strip, however large the map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.read.classes import ClassValue
from geomoe.raster.read.env import gdal_env, gdal_errors
from geomoe.raster.read.quicklook import quicklook

__all__ = ["ClassMap", "find_pyogrio", "open_map"]

_PIXELS = 2**22
"""Of a strip at most."""


def find_pyogrio(what: str) -> Any:
    """The library of polygons in files, for ``what``; raises GeomoeError where it is not installed."""
    try:
        return import_module("pyogrio")
    except ImportError as error:
        raise GeomoeError(f"{what} need pyogrio: pip install 'geomoe[vectors]'") from error


@dataclass(frozen=True)
class ClassMap:
    """An open map of classes.

    Attributes:
        path: of its file.
        width, height: in pixels.
        transform: of its pixels into its coordinates; None where nothing places it on the ground.
        crs: of these coordinates, if it is known.
        classes: what its values stand for; 0 is no data.
    """

    path: Path
    width: int
    height: int
    transform: rasterio.Affine | None
    crs: CRS | None
    classes: tuple[ClassValue, ...]
    _source: rasterio.DatasetReader

    def strips(self, rows: int | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """First row and values ``[h, width]`` of each strip, of so many rows, from above to below."""
        rows = rows or self._rows
        for top in range(0, self.height, rows):
            high = min(rows, self.height - top)
            with gdal_errors(f"{self.path.name} cannot be read", "write it again"):
                yield top, self._source.read(1, window=Window(0, top, self.width, high))

    def number(self, rows: int | None = None) -> int:
        """Of strips."""
        return -(-self.height // (rows or self._rows))

    @property
    def _rows(self) -> int:
        return max(_PIXELS // self.width, 1)

    @property
    def pixel_area(self) -> float | None:
        """Of a pixel, square metres; None where the map's coordinates are no lengths."""
        if self.transform is None or self.crs is None or not self.crs.is_projected:
            return None
        return float(abs(self.transform.determinant) * self.crs.linear_units_factor[1] ** 2)


@contextmanager
def open_map(path: Path) -> Iterator[ClassMap]:
    """A class map that geomoe wrote.

    Raises:
        GeomoeError: a file that cannot be read, or is none.
    """
    _, classes = quicklook(path, 16)
    with gdal_errors(f"{path.name} cannot be read", "write it again"), gdal_env():
        source = rasterio.open(path, driver="GTiff", sharing=False)
    with source:
        if source.count != 1 or source.dtypes[0] != "uint8":
            raise GeomoeError(f"{path.name} is not a map of classes that geomoe wrote")
        at = None if source.transform.is_identity else source.transform
        with gdal_env():
            yield ClassMap(path, source.width, source.height, at, source.crs, classes, source)
