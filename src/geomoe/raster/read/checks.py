"""What is checked of a path and of a file before a single pixel is believed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from rasterio.io import DatasetReader

from geomoe.errors import GeomoeError
from geomoe.raster.read.proj import check_crs_text
from geomoe.raster.read.tiff import MOST_TEXT, directories

__all__ = [
    "MAX_BANDS",
    "MAX_BLOCK_BYTES",
    "NAMES",
    "SIDECARS",
    "beside",
    "check_blocks",
    "check_directories",
    "check_neighbours",
    "local_file",
    "local_raster",
]

MAX_BANDS = 4096
MAX_BLOCK_BYTES = 512 * 2**20
"""Of one block of all bands that lie in it, decoded."""
_LARGE_BLOCK = 2**22
"""Pixels of a block, much larger than a tile."""
_MAX_ITEMS = 10_000
"""Of GDAL's own metadata, which takes time by the square of their number; a band has a few."""
_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG"}
# Walking offsets costs half a microsecond each; a file with more blocks than this is checked by its reads.
_MAX_WALK = 4_000_000
_MAX_AUX_BYTES = 2**22
_AUX_ELEMENTS = {
    "nodata value": b"<NoDataValue", "transform": b"<GeoTransform", "CRS": b"<SRS",
    "ground control points": b"<GCPList",
}  # fmt: skip
_WORLD_FILES = (".tfw", ".tifw", ".tiffw", ".wld", ".j2w", ".jp2w", ".tab")
NAMES = ".aux.xml"
SIDECARS = (NAMES, ".msk", ".ovr")
"""What other tools name after a file: left from an older one, they would speak for the new one."""
_RPC_FILES = (".rpb", "_rpc.txt")


def local_file(path: str | os.PathLike[str]) -> Path:
    """The absolute path of something that is on this machine's disks: a regular file or a folder.

    Raises:
        GeomoeError: if ``path`` is a URL, a virtual path of GDAL's, missing, or a device, pipe or socket.
    """
    text = os.fspath(path)
    if "\0" in text or text.startswith("/vsi") or "://" in text:
        raise GeomoeError(f"{text!r} is not a local file; download the scene, give the path of the copy")
    # Not resolve(): a symbolic link keeps its own name in messages.
    local = Path(os.path.abspath(text))
    shown = str(local) if str(local).isprintable() else repr(str(local))
    try:
        mode = local.stat().st_mode
    except FileNotFoundError:
        raise GeomoeError(f"{shown} does not exist; check the path of the scene") from None
    except (OSError, ValueError) as error:  # the second for a name that no file can have
        why = error.strerror if isinstance(error, OSError) else "no file can have this name"
        raise GeomoeError(f"{text!r} cannot be read: {why}; check the path of the scene") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise GeomoeError(f"{shown} is not a regular file; expected a scene on disk")
    return local


def local_raster(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """The absolute path of a plain local GeoTIFF or JPEG 2000, and the one driver that may open it.

    Raises:
        GeomoeError: if ``path`` is a URL, a virtual path of GDAL's, a folder, missing, or neither by name.
    """
    local = local_file(path)
    if local.is_dir():
        raise GeomoeError(f"{local} is a folder; expected a GeoTIFF or JPEG 2000, name one file inside it")
    driver = _DRIVERS.get(local.suffix.lower())
    if driver is None:
        found = local.suffix or "no extension"
        raise GeomoeError(
            f"{local.name} has {found}; expected a GeoTIFF (.tif, .tiff) or JPEG 2000 (.jp2), "
            "convert it with gdal_translate"
        )
    return local, driver


def check_neighbours(path: Path, *, placed: bool) -> tuple[str, ...]:
    """Look at the files beside a scene that other tools read with it and geomoe does not.

    Args:
        path: of the scene.
        placed: whether the scene itself says where it lies.

    Returns:
        The names of those that say nothing which would be lost.

    Raises:
        GeomoeError: for a file that holds the mask, nodata value or georeference of the scene.
    """
    mask = path.with_name(path.name + ".msk")
    if mask.exists():
        raise GeomoeError(
            f"{mask.name} holds the mask of {path.name} in a file of its own, which is not read; "
            f"put it inside: gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES {path.name} new.tif"
        )
    put_inside = f"which is not read; put it inside: gdal_translate {path.name} new.tif"
    aux = path.with_name(path.name + ".aux.xml")
    if aux.is_file():
        with aux.open("rb") as file:
            text = file.read(_MAX_AUX_BYTES)
        held = [what for what, element in _AUX_ELEMENTS.items() if element in text]
        if held:
            raise GeomoeError(f"{aux.name} holds the {' and '.join(held)} of {path.name}, {put_inside}")
    endings = [ending for e in _WORLD_FILES + _RPC_FILES for ending in dict.fromkeys((e, e.upper()))]
    beside = [name for e in endings if path.with_name(name := path.stem + e).exists()]
    if beside and not placed:
        raise GeomoeError(f"{beside[0]} says where {path.name} lies, {put_inside}")
    about = [file.name for file in (aux, path.with_suffix(".IMD")) if file.exists()]
    return tuple(about + beside)


def check_directories(name: str, file: BinaryIO) -> int:
    """Refuse a TIFF that would have GDAL take memory or time without bound, or open other files.

    All its images count: what is a mask or an overview is known only when GDAL has opened it.

    Args:
        name: of the scene, for messages.
        file: at its beginning.

    Returns:
        Bytes of the decoded blocks that reading a pixel of every band, and of the mask, takes.

    Raises:
        GeomoeError: for blocks that are too large, too much metadata, and a CRS that names files.
    """
    sizes = []
    for directory in directories(file):
        sizes.append(
            _check_block(name, directory.block, directory.value_bytes, directory.bands, directory.together)
        )
        _check_text(name, directory.geo + directory.metadata)
        check_crs_text(name, directory.geo)
        check_items(name, directory.metadata)
    return sum((*sizes[:1], max(sizes[1:], default=0)))


def _check_text(name: str, text: bytes) -> None:
    """Refuse what rasterio cannot read: it would say so in words of its own, and not by an error alone."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise GeomoeError(
            f"{name} has metadata that is not text in UTF-8 ({error.reason} at byte {error.start}); leave "
            f"it out: gdal_translate -co PROFILE=BASELINE {name} new.tif"
        ) from error


def check_items(name: str, metadata: bytes) -> None:
    """Refuse more of GDAL's metadata than it reads in a second; raises GeomoeError."""
    if len(metadata) >= MOST_TEXT or metadata.count(b"<Item") > _MAX_ITEMS:
        raise GeomoeError(
            f"{name} has more than {_MAX_ITEMS} items or {MOST_TEXT >> 20} MiB of GDAL's metadata; leave it "
            f"out: gdal_translate -co PROFILE=GeoTIFF {name} new.tif"
        )


def _check_block(name: str, block: tuple[int, int], value: int, bands: int, together: bool) -> int:
    """Bytes of the decoded blocks by which a pixel of every band is read, one after another or kept.

    Small blocks of single bands are decoded one after another. Large ones must be kept, or every tile of a
    scene would have all of it decoded anew.
    """
    rows, columns = block
    size = rows * columns * value * (bands if together or rows * columns > _LARGE_BLOCK else 1)
    if size > MAX_BLOCK_BYTES:
        raise GeomoeError(
            f"{name} is stored in blocks of {columns} x {rows} pixels, {size / 2**20:.0f} MiB of its bands, "
            f"more than {MAX_BLOCK_BYTES >> 20} MiB; rewrite it with gdal_translate -co TILED=YES"
        )
    return size


def beside(path: Path) -> list[Path]:
    """Files that are there and that other tools read with a GeoTIFF: of its mask, overviews or place."""
    names = [path.name + ending for ending in SIDECARS]
    names += [path.stem + case for e in _WORLD_FILES + _RPC_FILES for case in dict.fromkeys((e, e.upper()))]
    return [file for name in names if os.path.lexists(file := path.with_name(name))]


def check_blocks(path: Path, source: DatasetReader) -> None:
    """Refuse a file whose blocks are larger than memory allows or lie beyond the end of the file.

    Raises:
        GeomoeError: for both; a truncated download is the usual reason for the second.
    """
    pixel_interleaved = str(source.interleaving).upper().endswith("PIXEL")
    rows, columns = source.block_shapes[0]
    _check_block(path.name, (rows, columns), _item_bytes(source), source.count, pixel_interleaved)
    down, across = -(-source.height // rows), -(-source.width // columns)
    bands = (1,) if pixel_interleaved else source.indexes
    if down * across * len(bands) > _MAX_WALK:
        return
    size = path.stat().st_size
    for band in bands:
        for row in range(down):
            for column in range(across):
                place = f"{column}_{row}"
                offset = source.get_tag_item(f"BLOCK_OFFSET_{place}", "TIFF", bidx=band)
                length = source.get_tag_item(f"BLOCK_SIZE_{place}", "TIFF", bidx=band)
                if offset is None or length is None:
                    continue  # sparse: the block was never written, which is legal
                if int(offset) + int(length) > size:
                    raise GeomoeError(
                        f"{path.name} is truncated: it has {size} bytes and needs at least "
                        f"{int(offset) + int(length)}; copy or download it again"
                    )


def _item_bytes(source: DatasetReader) -> int:
    sizes = {
        "uint8": 1,
        "int8": 1,
        "uint16": 2,
        "int16": 2,
        "uint32": 4,
        "int32": 4,
        "float32": 4,
        "float64": 8,
    }
    return sizes.get(source.dtypes[0], 16)
