"""The boxes of a JPEG 2000 file, looked at before GDAL does."""

from __future__ import annotations

import os
import struct
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from geomoe.errors import GeomoeError
from geomoe.raster.read.checks import check_directories, check_items

__all__ = ["check_boxes"]

_CODESTREAM = b"\xff\x4f\xff\x51"
_OF_BOXES = (b"jp2h", b"asoc", b"res ", b"uinf", b"jpch", b"jplh", b"cgrp", b"ftbl", b"comp", b"drep")
_OF_TEXT = (b"uuid", b"xml ")
_MOST, _DEEPEST = 10_000, 8
_MOST_TEXT = 16 * 2**20


def check_boxes(path: Path) -> None:
    """Refuse a file whose boxes do not lie inside one another (ISO/IEC 15444-1, annex I.4).

    GDAL 3.10 walks boxes to find metadata, and goes round for ever in some that were damaged.

    Raises:
        GeomoeError: for a file that is neither boxes in order nor a bare code stream, or cannot be read; and
            as `check_directories` for what its boxes say of place and metadata.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(4) == _CODESTREAM:
                return
            texts: list[tuple[int, int]] = []
            good = _walk(file, 0, size, 0, [0], texts)
            for place, length in texts if good else ():
                _check_text(path.name, file, place, length)
    except OSError as error:
        raise GeomoeError(f"{path} cannot be read: {error.strerror}; check the file") from error
    if not good:
        raise GeomoeError(
            f"{path.name} is not a JPEG 2000 whose parts are in order; copy or download it again"
        )


def _check_text(name: str, file: BinaryIO, place: int, length: int) -> None:
    """A box may hold a GeoTIFF of a pixel that says where the scene lies (GeoJP2), or GDAL's metadata."""
    if length > _MOST_TEXT:
        raise GeomoeError(f"{name} has {length} bytes of metadata in one box; rewrite it with gdal_translate")
    file.seek(place)
    text = file.read(length)
    check_items(name, text)
    check_directories(name, BytesIO(text[_UUID:]))


_UUID = 16
"""Bytes by which such a box says what it is."""


def _walk(
    file: BinaryIO, place: int, end: int, depth: int, seen: list[int], texts: list[tuple[int, int]]
) -> bool:
    while place < end:
        seen[0] += 1
        file.seek(place)
        head = file.read(16)
        if len(head) < 8 or seen[0] > _MOST or depth > _DEEPEST:
            return False
        length, kind = struct.unpack(">I4s", head[:8])
        begins = place + 8
        if length == 1:  # the length follows, in eight bytes
            if len(head) < 16:
                return False
            length, begins = struct.unpack(">Q", head[8:])[0], place + 16
        elif length == 0 and depth == 0:  # the last one, which goes to the end
            length = end - place
        if length < begins - place or place + length > end:
            return False
        if kind in _OF_BOXES and not _walk(file, begins, place + length, depth + 1, seen, texts):
            return False
        if kind in _OF_TEXT:
            texts.append((begins, place + length - begins))
        place += length
    return True
