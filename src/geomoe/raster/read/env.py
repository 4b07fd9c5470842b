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
from geomoe.raster.read.quiet import silence_libtiff

__all__ = ["BLOCK_CACHE_BYTES", "JPEG2000_CACHE_BYTES", "gdal_env", "gdal_errors", "one_line"]

BLOCK_CACHE_BYTES = 32 * 2**20
"""Small: up to here memory grows with the scene, and neighbouring tiles share few blocks."""

JPEG2000_CACHE_BYTES = 256 * 2**20
"""Its blocks are large and slow to decode: two rows of those of four Sentinel-2 bands fit, so that a row of
tiles does not decode anew what the one above it did."""

# What an environment, a file of GDAL's settings or another library of this process may say otherwise, so that
# the same job gave other bytes, or failed after its last tile. The values are those of a plain environment.
_FIXED = {
    # How a COG is written: blocks, compression and layout of its overviews, which have settings of their own.
    "GDAL_TIFF_OVR_BLOCKSIZE": "512",
    "COMPRESS_OVERVIEW": "DEFLATE",
    "ZLEVEL_OVERVIEW": "6",
    "INTERLEAVE_OVERVIEW": "PIXEL",
    "PHOTOMETRIC_OVERVIEW": "",  # by the colours of the bands
    "BIGTIFF_OVERVIEW": "IF_SAFER",
    "SPARSE_OK_OVERVIEW": "NO",
    "GDAL_OVR_PROPAGATE_NODATA": "NO",
    # zlib and libdeflate make other bytes of the same pixels.
    "GDAL_TIFF_DEFLATE_SUBCODEC": "LIBDEFLATE",
    # Scratch files are filled and read by numpy, in the order of bytes of this machine.
    "GDAL_TIFF_ENDIANNESS": "NATIVE",
    "GTIFF_DONT_WRITE_BLOCKS": "NO",  # a debugging aid: nothing would be written at all
    "GDAL_DEFAULT_CREATE_COPY": "NO",
    "GTIFF_ESRI_CITATION": "YES",
    "GTIFF_WRITE_TOWGS84": "AUTO",
    # How masks are read: 255 where pixels are valid.
    "GDAL_TIFF_INTERNAL_MASK_TO_8BIT": "YES",
    # Where a scene lies, and half a pixel off for none whose pixels are points. EMPTY_DIR keeps other files
    # out; of JPEG 2000 GDAL gives numbers out of nowhere if it is told to look at what is inside alone.
    "GDAL_GEOREF_SOURCES": "PAM,INTERNAL,TABFILE,WORLDFILE",
    "GTIFF_POINT_GEO_IGNORE": "NO",
    "GTIFF_IMPORT_FROM_EPSG": "YES",
    "OSR_WKT_FORMAT": "DEFAULT",
    "OSR_DEFAULT_AXIS_MAPPING_STRATEGY": "AUTHORITY_COMPLIANT",
    # By which way pixels are read: errors are errors, and a scene is no stream.
    "GTIFF_IGNORE_READ_ERRORS": "NO",
    "GTIFF_DIRECT_IO": "NO",
    "GTIFF_VIRTUAL_MEM_IO": "NO",
    "TIFF_READ_STREAMING": "NO",
}

# A private GDAL class (CPLE_BaseError) escapes from rasterio.shutil.copy; the others are rasterio's own
# roots. UnicodeDecodeError, a ValueError, comes from mutated tags.
_GDAL_ERRORS = (RasterioError, CPLE_BaseError, CRSError, RPCError, OSError, ValueError)


@contextmanager
def gdal_env(cache_bytes: int = BLOCK_CACHE_BYTES) -> Iterator[None]:
    """Bounded block cache, no files beside the one that is named, masks inside the file.

    ``EMPTY_DIR`` keeps GDAL from opening ``.msk``, ``.ovr`` and ``.aux.xml`` neighbours, which any driver
    may answer for (a VRT among them); it also keeps it from listing a folder of a million files.

    What else decides over the bytes of a file is fixed here, whatever the environment says.
    """
    silence_libtiff()
    with (
        rasterio.Env(),  # the first one of a process reads files of settings, which are not to win
        rasterio.Env(
            **_FIXED,
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
