"""What is checked of a path and of a file before a single pixel is believed."""

from __future__ import annotations

import os
from pathlib import Path

from rasterio.io import DatasetReader

from geomoe.errors import GeomoeError

__all__ = ["MAX_BANDS", "MAX_BLOCK_BYTES", "check_blocks", "ignored_neighbours", "local_raster"]

MAX_BANDS = 4096
MAX_BLOCK_BYTES = 512 * 2**20
_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG"}
# Walking offsets costs half a microsecond each; a file with more blocks than this is checked by its reads.
_MAX_WALK = 4_000_000


def local_raster(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """The absolute path of a plain local GeoTIFF or JPEG 2000, and the one driver that may open it.

    Raises:
        GeomoeError: if ``path`` is a URL, a virtual path of GDAL's, a folder, missing, or neither by name.
    """
    text = os.fspath(path)
    if "\0" in text or text.startswith("/vsi") or "://" in text:
        raise GeomoeError(f"{text!r} is not a local file; download the scene, give the path of the copy")
    # Not resolve(): a symbolic link keeps its own name in messages.
    local = Path(os.path.abspath(text))
    if local.is_dir():
        raise GeomoeError(f"{local} is a folder; expected a GeoTIFF or JPEG 2000, name one file inside it")
    if not local.exists():
        raise GeomoeError(f"{local} does not exist; check the path of the scene")
    if not local.is_file():
        raise GeomoeError(f"{local} is not a regular file; expected a GeoTIFF or JPEG 2000 on disk")
    driver = _DRIVERS.get(local.suffix.lower())
    if driver is None:
        found = local.suffix or "no extension"
        raise GeomoeError(
            f"{local.name} has {found}; expected a GeoTIFF (.tif, .tiff) or JPEG 2000 (.jp2), "
            "convert it with gdal_translate"
        )
    return local, driver


def ignored_neighbours(path: Path) -> tuple[str, ...]:
    """Names of files beside a scene that other tools would read with it and geomoe does not.

    Raises:
        GeomoeError: for an external mask, without which invalid pixels would pass for valid ones.
    """
    mask = path.with_name(path.name + ".msk")
    if mask.exists():
        raise GeomoeError(
            f"{mask.name} holds the mask of {path.name} in a file of its own, which is not read; "
            f"put it inside: gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES {path.name} new.tif"
        )
    stem = path.stem
    beside = (
        path.name + ".aux.xml", stem + ".tfw", stem + ".tifw", stem + ".wld", stem + ".RPB",
        stem + ".rpb",
        stem + "_RPC.TXT", stem + "_rpc.txt", stem + ".tab", stem + ".IMD",
    )  # fmt: skip
    return tuple(name for name in beside if path.with_name(name).exists())


def check_blocks(path: Path, source: DatasetReader) -> None:
    """Refuse a file whose blocks are larger than memory allows or lie beyond the end of the file.

    Raises:
        GeomoeError: for both; a truncated download is the usual reason for the second.
    """
    pixel_interleaved = str(source.interleaving).upper().endswith("PIXEL")
    rows, columns = source.block_shapes[0]
    bytes_per_pixel = _item_bytes(source) * (source.count if pixel_interleaved else 1)
    if rows * columns * bytes_per_pixel > MAX_BLOCK_BYTES:
        size = rows * columns * bytes_per_pixel / 2**20
        raise GeomoeError(
            f"{path.name} is stored in blocks of {columns} x {rows} pixels, {size:.0f} MiB each, "
            f"more than {MAX_BLOCK_BYTES >> 20} MiB; rewrite it with gdal_translate -co TILED=YES"
        )
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
    sizes = {"uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "float32": 4}
    return sizes.get(source.dtypes[0], 16)
