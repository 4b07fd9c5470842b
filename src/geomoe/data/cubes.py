"""Hyperspectral cubes with labels: one scene of many bands, a few of whose pixels have a class.

A cube is a file ``.npz`` that holds ``cube`` ``[H, W, bands]`` and ``labels`` ``[H, W]``, whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomoe.data.datasets import DataSet, find_data_set
from geomoe.errors import GeomoeError

__all__ = ["Cube", "find_cube", "read_cube"]


@dataclass(frozen=True, eq=False)
class Cube:
    """A cube in memory.

    Attributes:
        name: of the file.
        data: ``[bands, H, W]`` float32, in the units of the file.
        labels: ``[H, W]`` as in the file.
        known: which published one it is; None for another.
    """

    name: str
    data: NDArray[np.float32]
    labels: NDArray[np.integer]
    known: DataSet | None


def find_cube(root: Path) -> Path | None:
    """The file of a cube: ``root`` itself, or the one ``.npz`` in it; None where there is none.

    Raises:
        GeomoeError: several files, of which one has to be given.
    """
    if root.suffix == ".npz":
        return root
    found = sorted(root.glob("*.npz")) if root.is_dir() else []
    if len(found) > 1:
        raise GeomoeError(f"{root} holds {len(found)} cubes; give one of them, such as {found[0]}")
    return found[0] if found else None


def read_cube(path: Path) -> Cube:
    """A cube with its labels; raises GeomoeError for anything else, or one that is too large."""
    from geomoe.raster.formats.cube import read_arrays  # pictures train where rasterio is not

    cube, labels = read_arrays(path, "cube", "labels")
    if cube.ndim != 3 or labels.shape != cube.shape[:2] or not cube.size:
        raise GeomoeError(
            f"{path} holds a cube {list(cube.shape)} and labels {list(labels.shape)}; expected [H, W, bands] "
            "and [H, W]"
        )
    if labels.dtype.kind not in "iu" or cube.dtype.kind not in "iuf":
        raise GeomoeError(
            f"{path} holds {cube.dtype} and labels of {labels.dtype}; expected numbers, and whole ones"
        )
    data = np.ascontiguousarray(cube.transpose(2, 0, 1), np.float32)
    return Cube(path.stem, data, labels, find_data_set(path, "cube"))
