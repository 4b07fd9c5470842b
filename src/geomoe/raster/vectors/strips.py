"""A class map that geomoe wrote, strip by strip: its memory is that of a strip, however large the map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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

__all__ = ["ClassMap", "find_pyogrio", "open_map", "split_kind"]

_PIXELS = 2**22
"""Of a strip at most."""
_CLASS_BITS = 8


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
    _instances: rasterio.DatasetReader | None = None

    def strips(self, rows: int | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """First row and values ``[h, width]`` of each strip, of so many rows, from above to below."""
        rows = rows or self._rows
        for top in range(0, self.height, rows):
            high = min(rows, self.height - top)
            with gdal_errors(f"{self.path.name} cannot be read", "write it again"):
                yield top, self._source.read(1, window=Window(0, top, self.width, high))

    def kinds(
        self, top: int, strip: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8] | NDArray[np.int32], NDArray[np.int64]]:
        """What parts a strip into polygons: classes, and where they are known instances of these.

        Args:
            top: its first row.
            strip: its values.

        Returns:
            A number for each pixel, ``[h, width]``, and of each number what it stands for: the value of the
            class, and from the ninth bit on the number of the instance.
        """
        if self._instances is None:
            return strip, np.arange(256)
        with gdal_errors("the instances cannot be read", "write them again"):
            of = self._instances.read(1, window=Window(0, top, self.width, len(strip)))
        stands, numbers = np.unique(of.astype(np.int64) << _CLASS_BITS | strip, return_inverse=True)
        return numbers.reshape(strip.shape).astype(np.int32), stands

    @property
    def counted(self) -> bool:
        """Whether instances are known."""
        return self._instances is not None

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


def split_kind(kind: int) -> tuple[int, int]:
    """Value of the class, and number of the instance, 0 of none, of what `ClassMap.kinds` gives."""
    return kind & (1 << _CLASS_BITS) - 1, kind >> _CLASS_BITS


@contextmanager
def open_map(path: Path, instances: Path | None = None) -> Iterator[ClassMap]:
    """A class map that geomoe wrote, and the instances of its classes, if they are wanted.

    Raises:
        GeomoeError: a file that cannot be read, or is none.
    """
    _, classes = quicklook(path, 16)
    with ExitStack() as stack:
        source = stack.enter_context(_opened(path))
        if source.count != 1 or source.dtypes[0] != "uint8":
            raise GeomoeError(f"{path.name} is not a map of classes that geomoe wrote")
        numbered = None if instances is None else stack.enter_context(_opened(instances))
        if numbered is not None and (
            numbered.tags().get("GEOMOE_LAYER") != "instances"
            or (numbered.shape, numbered.transform) != (source.shape, source.transform)
        ):
            raise GeomoeError(f"{instances} does not hold the instances of {path.name}")
        at = None if source.transform.is_identity else source.transform
        with gdal_env():
            yield ClassMap(path, source.width, source.height, at, source.crs, classes, source, numbered)


def _opened(path: Path) -> rasterio.DatasetReader:
    with gdal_errors(f"{path.name} cannot be read", "write it again"), gdal_env():
        return rasterio.open(path, driver="GTiff", sharing=False)
