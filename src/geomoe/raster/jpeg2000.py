"""The boxes of a JPEG 2000 file, looked at before GDAL does."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from geomoe.errors import GeomoeError

__all__ = ["check_boxes"]

_CODESTREAM = b"\xff\x4f\xff\x51"
_OF_BOXES = (b"jp2h", b"asoc", b"res ", b"uinf", b"jpch", b"jplh", b"cgrp", b"ftbl", b"comp", b"drep")
_MOST, _DEEPEST = 10_000, 8


def check_boxes(path: Path) -> None:
    """Refuse a file whose boxes do not lie inside one another (ISO/IEC 15444-1, annex I.4).

    GDAL 3.10 walks boxes to find metadata, and goes round for ever in some that were damaged.

    Raises:
        GeomoeError: for a file that is neither boxes in order nor a bare code stream, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(4) == _CODESTREAM:
                return
            good = _walk(file, 0, size, 0, [0])
    except OSError as error:
        raise GeomoeError(f"{path} cannot be read: {error.strerror}; check the file") from error
    if not good:
        raise GeomoeError(
            f"{path.name} is not a JPEG 2000 whose parts are in order; copy or download it again"
        )


def _walk(file: BinaryIO, place: int, end: int, depth: int, seen: list[int]) -> bool:
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
        if kind in _OF_BOXES and not _walk(file, begins, place + length, depth + 1, seen):
            return False
        place += length
    return True
