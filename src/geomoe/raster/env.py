"""The GDAL settings under which every scene is opened and written, and its errors made ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import (
    CRSError,
    NodataShadowWarning,
    NotGeoreferencedWarning,
    RasterioError,
    RPCError,
    TransformWarning,
)

from geomoe.errors import GeomoeError
from geomoe.raster.quiet import silence_libtiff

__all__ = ["BLOCK_CACHE_BYTES", "JPEG2000_CACHE_BYTES", "gdal_env", "gdal_errors", "one_line"]

BLOCK_CACHE_BYTES = 32 * 2**20
"""Small: up to here memory grows with the scene, and neighbouring tiles share few blocks."""

JPEG2000_CACHE_BYTES = 256 * 2**20
"""Its blocks are large and slow to decode: two rows of those of four Sentinel-2 bands fit, so that a row of
tiles does not decode anew what the one above it did."""

# A private GDAL class (CPLE_BaseError) escapes from rasterio.shutil.copy; the others are rasterio's own
# roots. UnicodeDecodeError, a ValueError, comes from mutated tags.
_GDAL_ERRORS = (RasterioError, CPLE_BaseError, CRSError, RPCError, OSError, ValueError)


@contextmanager
def gdal_env(cache_bytes: int = BLOCK_CACHE_BYTES) -> Iterator[None]:
    """Bounded block cache, no files beside the one that is named, masks inside the file.

    ``EMPTY_DIR`` keeps GDAL from opening ``.msk``, ``.ovr`` and ``.aux.xml`` neighbours, which any driver
    may answer for (a VRT among them); it also keeps it from listing a folder of a million files.
    """
    silence_libtiff()
    with (
        rasterio.Env(
            GDAL_CACHEMAX=cache_bytes,
            GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR",
            GDAL_PAM_ENABLED="NO",
            GDAL_TIFF_INTERNAL_MASK="YES",
            GDAL_NUM_THREADS="1",
            GDAL_SWATH_SIZE=4 * 2**20,  # else copies take a quarter of the cache once more
        ),
        warnings.catch_warnings(),
    ):
        # A scene without a grid is allowed, as is one with nodata and an alpha band; ``geomoe info`` says so.
        for category in (NotGeoreferencedWarning, TransformWarning, NodataShadowWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def gdal_errors(doing: str, remedy: str) -> Iterator[None]:
    """Turn whatever GDAL, rasterio or the operating system raises into one `GeomoeError`.

    Args:
        doing: what was being done, such as ``"cannot read /data/a.tif"``.
        remedy: what the reader of the message can do.
    """
    try:
        yield
    except _GDAL_ERRORS as error:
        raise GeomoeError(f"{doing}: {one_line(error)}; {remedy}") from error


def one_line(error: BaseException) -> str:
    """The first line of what went wrong: the cause if there is one, as rasterio's own text says little."""
    cause = error.__cause__ if isinstance(error.__cause__, CPLE_BaseError) else error
    # CPLE errors hold (class, number, message); the message alone is for people.
    text = str(cause.args[2]) if isinstance(cause, CPLE_BaseError) and len(cause.args) > 2 else str(cause)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
