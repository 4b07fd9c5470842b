"""Images of one place by several sensors, a file of each on one grid, stacked band by band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomoe.data.images import MAX_PIXELS
from geomoe.errors import GeomoeError

__all__ = ["Stack", "read_stack"]

_Grid = tuple[int, int, Any, Any]
"""Width, height, transform and coordinates; both of these may be None."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Bands of several files.

    Attributes:
        data: ``[C, H, W]`` float32, in the units of the files; 0 where there is no measurement.
        present: ``[S, H, W]`` bool, where all bands of each file are valid.
        bands: of each file.
        box: where the grid lies, if the files say so: west, south, east, north, and the side of a pixel.
    """

    data: NDArray[np.float32]
    present: NDArray[np.bool_]
    bands: tuple[int, ...]
    box: tuple[float, float, float, float, float] | None


def read_stack(paths: Sequence[Path], max_pixels: int = MAX_PIXELS) -> Stack:
    """All bands of all files, in their order.

    Args:
        paths: rasters of one place, of as many pixels and with the same georeference.
        max_pixels: that a file may have; it is looked at before any is read.

    Raises:
        GeomoeError: files that cannot be read, are too large, or lie on unlike grids.
    """
    from rasterio.windows import Window  # pictures train where rasterio is not

    from geomoe.raster.read.grid import same_transform
    from geomoe.raster.read.scene import open_file

    def alike(one: _Grid, other: _Grid) -> bool:
        same = same_transform(one[2], other[2], one[0], one[1])
        return one[:2] == other[:2] and one[3] == other[3] and same

    data, present, grids = [], [], list[_Grid]()
    for path in paths:
        with open_file(path) as scene:
            if scene.width * scene.height > max_pixels:
                raise GeomoeError(
                    f"{path} has {scene.width} x {scene.height} pixels, more than {max_pixels:,}"
                )
            grids.append((scene.width, scene.height, scene.transform, scene.crs))
            if not alike(grids[-1], grids[0]):
                raise GeomoeError(f"{path} and {paths[0]} are of unlike grids")
            values, valid = scene.read(Window(0, 0, scene.width, scene.height), scene.data_bands)
            data.append(np.where(valid, values, np.float32(0)))
            present.append(valid.all(0))
    width, high, at, _ = grids[0]
    box = None
    if at is not None and at.a > 0:
        box = (at.c, at.f - high * at.a, at.c + width * at.a, at.f, at.a)
    return Stack(np.concatenate(data), np.stack(present), tuple(map(len, data)), box)
