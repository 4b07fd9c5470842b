"""What PROJ may open: the data that rasterio brings, and nothing that a scene names.

A CRS can name files of datum or height shifts (``+nadgrids=``, ``PROJ4_GRIDS``, ``PARAMETERFILE``). PROJ
opens them as soon as GDAL has opened the scene: a pipe would hang the job, an address would be fetched.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from geomoe.errors import GeomoeError

__all__ = ["check_crs_text", "pin_data"]

# From ESRI's prefix, after which GDAL reads any WKT, to the end of the key; a bar inside of quotes is none.
_WKT = re.compile(rb'PE String[ =]*((?:"[^"]*"?|[^"|\0])*)', re.IGNORECASE)
# An extension without a file: a Mercator projection on the sphere has one that names the empty grid.
_HARMLESS = re.compile(
    rb'EXTENSION\s*[\[(]\s*"PROJ4"\s*,\s*"(?:\s*\+(?:nadgrids=@null|(?!init|file|catalog|\w*grids)\w+(?:=[-+\w.]*)?))*\s*"',
    re.IGNORECASE,
)
# All else by which a text can come to a file: PROJ's own language has an equals sign wherever it names one.
_NAMES_FILE = re.compile(rb"EXTENSION|PARAMETERFILE|GEOIDMODEL|BOUNDCRS|=", re.IGNORECASE)


def pin_data() -> None:
    """Have PROJ and GDAL read the data that rasterio brings, and no network.

    rasterio takes ``PROJ_DATA``, ``PROJ_LIB`` and ``GDAL_DATA`` first, which other programs set to data of
    another version; and with its own data alone, where a scene lies does not depend on the grids that are
    installed. Where rasterio was built against a system's libraries it brings none, and theirs are used.
    """
    os.environ["PROJ_NETWORK"] = "OFF"
    for name in ("PROJ_AUX_DB", "OSR_DEFAULT_AXIS_MAPPING_STRATEGY"):
        os.environ.pop(name, None)
    spec = find_spec("rasterio")
    for home in (spec.submodule_search_locations or []) if spec else []:
        for name, data, needed in (("PROJ_DATA", "proj_data", "proj.db"), ("GDAL_DATA", "gdal_data", "")):
            if (Path(home) / data / needed).exists():
                os.environ[name] = str(Path(home) / data)


def check_crs_text(name: str, text: bytes) -> None:
    """Refuse a CRS that names files.

    Args:
        name: of the scene, for messages.
        text: of its GeoTIFF keys.

    Raises:
        GeomoeError: if PROJ would open a file, or an address, by it.
    """
    for found in _WKT.finditer(text):
        if _NAMES_FILE.search(_HARMLESS.sub(b"", found[1])):
            raise GeomoeError(
                f"{name} has a CRS that names grid files, and none is opened for a scene; give it a plain "
                f"one: gdal_edit.py -a_srs EPSG:CODE {name}"
            )
