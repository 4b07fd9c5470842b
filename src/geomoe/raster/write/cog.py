"""Writing a cloud-optimised GeoTIFF that is either whole and checked, or not there."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.read.env import gdal_env
from geomoe.raster.write.metadata import CogMetadata
from geomoe.raster.write.scratch import SCRATCH_BLOCK, Scratch, Sums, sums_of

__all__ = ["BLOCK", "REMEDY", "estimated_bytes", "write_cog"]

BLOCK = 512
REMEDY = "free some space on that disk or write to another one; nothing was left at the target"


def estimated_bytes(meta: CogMetadata) -> tuple[int, int]:
    """Bytes of the scratch files, exact but for their headers, and of the COG at most.

    The COG holds a third more pixels (overviews), and of noise DEFLATE takes off nothing.
    """
    # A scratch file is made of whole blocks.
    pixels = math.prod(-(-side // SCRATCH_BLOCK) * SCRATCH_BLOCK for side in (meta.width, meta.height))
    data = pixels * meta.count * np.dtype(meta.dtype).itemsize
    scratch = data + (pixels if meta.mask else 0)
    # Of the mask the COG needs a bit a pixel.
    return scratch + 2**16, (data + (pixels // 8 if meta.mask else 0)) * 27 // 20 + 2**18


def write_cog(
    scratch: Scratch,
    part: Path,
    pieces: Iterable[tuple[Window, Sums]],
    nodata: float | None,
    name: str,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Make the COG of a scratch file, read it back whole, and flush it to the disk.

    GDAL reports a full disk late or, with threads, not at all; hence no threads, and the check of every
    window against checksums of what was in memory. The scratch file's pixels stay as they are: a process
    that is killed here can be followed by another.

    Args:
        scratch: filled, and closed.
        part: where the file goes.
        pieces: windows that cover the output, with what `Scratch.write` gave for each.
        nodata: of the output.
        name: of the output, for messages.
        tags: to add.

    Raises:
        GeomoeError: if it does not read back as it was written.
        OSError: and what GDAL raises, if it cannot be written.
    """
    part.unlink(missing_ok=True)
    meta = scratch.meta
    # GDAL takes this for the overviews of a mask, too, which have none: there it can only be left unsaid.
    predictor = {} if meta.mask else {"PREDICTOR_OVERVIEW": "3" if meta.dtype == "float32" else "2"}
    os.environ.pop("PREDICTOR_OVERVIEW", None)
    own = {
        **predictor,
        # The mask is a neighbour of the scratch file, in a folder that holds nothing else.
        "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE",
        # Overviews are made in a file of their own: here, and not where the environment says.
        "CPL_TMPDIR": str(part.parent),
    }
    with gdal_env(), rasterio.Env(**own):
        scratch.declare(nodata, tags or {})
        rasterio.shutil.copy(scratch.path, part, driver="COG", **_options(scratch.meta))
    _check(part, scratch.meta, pieces, nodata, name)
    with part.open("r+b") as file:  # Windows flushes no file that is open to be read alone
        os.fsync(file.fileno())


def compressed_share(data: NDArray[np.generic], dtype: str) -> tuple[float, float]:
    """How small pixels ``[C, h, w]`` become in a COG, and how long it takes to put them there.

    Returns:
        Bytes of the file over bytes of the pixels, and seconds a byte to write and to check it; both with
        overviews.
    """
    even = data[:, : data.shape[1] // 2 * 2, : data.shape[2] // 2 * 2].astype(np.float64)
    halves = (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 4
    size, writing, reading = _trial(data, dtype)
    if not halves.size:
        return size, writing + reading
    # Each overview has a quarter of the pixels of the one before, which makes a third in all.
    return size + _trial(halves.astype(dtype), dtype)[0] / 3, writing * 4 / 3 + reading


def _trial(data: NDArray[np.generic], dtype: str) -> tuple[float, float, float]:
    """Of a compressed file in memory: bytes, seconds to write and to read, over bytes of its pixels."""
    bands, height, width = data.shape
    with gdal_env(), MemoryFile() as file:
        began = time.perf_counter()
        with file.open(
            driver="GTiff", width=width, height=height, count=bands, dtype=dtype, compress="deflate",
            predictor=3 if np.issubdtype(dtype, np.floating) else 2, tiled=True, blockxsize=BLOCK,
            blockysize=BLOCK, interleave="pixel", photometric="MINISBLACK", alpha="NO",
        ) as trial:  # fmt: skip
            trial.write(data)
        wrote = time.perf_counter()
        with file.open() as trial:
            trial.read()
        read = time.perf_counter()
        # Of a small trial most is padding, which takes time but no space.
        whole = -(-height // BLOCK) * -(-width // BLOCK) * BLOCK**2 * data.nbytes / (height * width)
        return len(file.read()) / data.nbytes, (wrote - began) / whole, (read - wrote) / whole


def _options(meta: CogMetadata) -> dict[str, Any]:
    return {
        "BLOCKSIZE": str(BLOCK),
        "COMPRESS": "DEFLATE",
        "PREDICTOR": "FLOATING_POINT" if np.issubdtype(meta.dtype, np.floating) else "STANDARD",
        "BIGTIFF": "IF_SAFER",
        "OVERVIEW_RESAMPLING": meta.overviews.upper(),
        **({"COPY_SRC_MDD": "YES"} if meta.own_domains else {}),
    }


def _check(
    part: Path, meta: CogMetadata, pieces: Iterable[tuple[Window, Sums]], nodata: float | None, name: str
) -> None:
    with gdal_env(), rasterio.open(part, driver="GTiff", sharing=False) as cog:
        shape = (cog.width, cog.height, cog.count, cog.dtypes[0])
        if shape != (meta.width, meta.height, meta.count, meta.dtype):
            raise GeomoeError(f"{name} was written as {shape}, which is not what was asked; {REMEDY}")
        if cog.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") != "COG":
            raise GeomoeError(f"{name} was not written as a COG; check the GDAL that rasterio uses")
        if max(meta.width, meta.height) > BLOCK and not cog.overviews(1):
            raise GeomoeError(f"{name} was written without overviews; check the GDAL that rasterio uses")
        if wrong := _misplaced(cog, meta, nodata):
            raise GeomoeError(f"the {wrong} of {name} does not read back as it was written; check GDAL")
        for window, wanted in pieces:
            mask = cog.read_masks(1, window=window) if meta.mask else None
            if sums_of(cog.read(window=window), mask) != wanted:
                raise GeomoeError(f"{name} does not read back as it was written; {REMEDY}")


def _misplaced(cog: DatasetReader, meta: CogMetadata, nodata: float | None) -> str | None:
    """What of the georeference or nodata is not as it was to be; ``None`` if nothing."""
    gcps = [(p.row, p.col, p.x, p.y) for p in cog.gcps[0]]
    if meta.transform is not None and not meta.gcps and meta.transform.determinant:
        back = ~meta.transform * cog.transform
        corners = [(x, y) for x in (0, meta.width) for y in (0, meta.height)]
        # A thousandth of a pixel: where pixels are points, corners are stored as centres.
        if not np.allclose([back * corner for corner in corners], corners, rtol=0, atol=1e-3):
            return "transform"
    wanted = [(p.row, p.col, p.x, p.y) for p in meta.gcps]
    if len(gcps) != len(wanted) or not np.allclose(gcps, wanted, rtol=1e-9, atol=1e-6):
        return "ground control"
    if meta.crs is not None and cog.crs is None and not meta.gcps:
        return "CRS"
    if nodata != cog.nodata and not (nodata is not None and np.isnan([nodata, cog.nodata or 0]).all()):
        return "nodata value"
    return None
