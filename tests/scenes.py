"""Small scenes on disk, for the tests of rooms that read and write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

UTM = Affine(10.0, 0.0, 438730.0, 0.0, -10.0, 4176860.0)


def pixels(bands: int, height: int, width: int, dtype: str, seed: int = 0) -> NDArray[Any]:
    """Smooth structure plus noise over a good part of the type's range."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(height)[:, None] / 5) + np.cos(np.arange(width)[None] / 7)  # [H, W]
    unit = (wave[None] + 2) / 4 * 0.6 + rng.random((bands, height, width)) * 0.3 + 0.05
    if dtype.startswith("float"):
        return (unit * 40 - 10).astype(dtype)
    info = np.iinfo(dtype)
    return np.rint(info.min + unit * (info.max - info.min)).astype(dtype)


def write_scene(
    path: Path,
    data: NDArray[Any],
    *,
    transform: Affine | None = UTM,
    crs: str | None = "EPSG:32618",
    nodata: float | None = None,
    mask: NDArray[np.bool_] | None = None,
    names: Sequence[str] = (),
    **options: Any,
) -> Path:
    """A GeoTIFF of ``data`` ``[C, H, W]``; ``mask`` ``[H, W]`` is stored inside it."""
    bands, height, width = data.shape
    options = {"photometric": "MINISBLACK", "alpha": "NO", **options}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"),
        rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=data.dtype.name,
            crs=crs, transform=transform, nodata=nodata, **options,
        ) as scene,
    ):  # fmt: skip
        scene.write(data)
        for band, name in enumerate(names, 1):
            scene.set_band_description(band, name)
        if mask is not None:
            scene.write_mask(mask)
    return path


def left_over(folder: Path) -> list[str]:
    """What stands in a folder."""
    return sorted(p.name for p in folder.iterdir())
