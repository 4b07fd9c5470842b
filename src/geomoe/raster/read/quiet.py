"""Keeping libtiff from talking over us."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import rasterio

__all__ = ["silence_libtiff"]

# Where the wheels of Linux and macOS keep the libraries that they bring.
_FOLDERS = ("../rasterio.libs", ".dylibs")


@cache
def silence_libtiff() -> None:
    """Stop libtiff from printing ``_tiffWriteProc: No space left on device.`` on standard error.

    GDAL reports the same failure as an error that we turn into ours; but libtiff's file layer also prints it
    from C, some lines for every block, past Python's ``sys.stderr``. Does nothing where rasterio was built
    against a system's GDAL, whose libtiff is not ours to change.
    """
    home = Path(rasterio.__file__).parent
    for library in (found for folder in _FOLDERS for found in (home / folder).glob("libtiff*")):
        handler = ctypes.CDLL(str(library)).TIFFSetErrorHandler
        handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        handler(None)
