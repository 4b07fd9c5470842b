"""The directories of a TIFF file, looked at before GDAL does."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["MOST_TEXT", "Directory", "directories"]

MOST_TEXT = 2**23
"""Bytes of one text that are looked at."""
_MOST_DIRECTORIES, _MOST_ENTRIES, _MOST_VALUES = 4096, 65535, 4096
# Types by which libtiff takes whole numbers, as struct has them; and bytes of all the others.
_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_SIZES_OF = {**{kind: struct.calcsize(letter) for kind, letter in _TYPES.items()}, 5: 8, 10: 8, 11: 4, 12: 8}
# Tags of TIFF 6.0, its supplement 1 and GeoTIFF, and GDAL's own.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS = 256, 257, 258, 259, 273
_SAMPLES, _ROWS, _SIZES, _PLANAR = 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _CHILDREN, _GEO_TEXT, _GDAL_TEXT = 322, 323, 330, 34737, 42112
_TEXTS = (_GEO_TEXT, _GDAL_TEXT)
_NUMBERS = (
    _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS, _SAMPLES, _ROWS, _SIZES, _PLANAR,
    _TILE_WIDTH, _TILE_HEIGHT, _CHILDREN,
)  # fmt: skip


@dataclass(frozen=True)
class Directory:
    """What one of the images of a file says of itself.

    Attributes:
        block: rows and columns of a tile or strip, as it is decoded.
        bands: that there are.
        together: whether a block holds all bands, else each has blocks of its own.
        value_bytes: of a decoded value; GDAL gives a byte to one of fewer bits.
        geo: the texts of its GeoTIFF keys.
        metadata: GDAL's own, as XML.
    """

    block: tuple[int, int]
    bands: int
    together: bool
    value_bytes: int
    geo: bytes
    metadata: bytes


def directories(file: BinaryIO) -> Iterator[Directory]:
    """Every image of a TIFF or BigTIFF: of the chain, and those below them.

    What cannot be read ends it without an error: GDAL, which is stricter, will say so. Where a file says a
    thing twice, the larger value counts.
    """
    opened = _Reader.of(file)
    if opened is None:
        return
    reader, first = opened
    waiting, seen = [first], {0}
    while waiting and len(seen) <= _MOST_DIRECTORIES:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        entries = reader.directory(place)
        yield _described(entries)
        waiting += [*entries.numbers.get(_CHILDREN, ()), entries.following]


@dataclass
class _Entries:
    """Of one directory: numbers and texts by their tags, and where the next directory is; 0 for none."""

    numbers: dict[int, tuple[int, ...]]
    texts: dict[int, bytes]
    following: int = 0

    def most(self, tag: int, otherwise: int) -> int:
        return max(self.numbers.get(tag, ()), default=otherwise)


def _described(entries: _Entries) -> Directory:
    width, height = entries.most(_WIDTH, 1), entries.most(_HEIGHT, 1)
    across, down = width, min(max(1, entries.most(_ROWS, height)), height)
    if {_TILE_WIDTH, _TILE_HEIGHT} & entries.numbers.keys():
        across, down = entries.most(_TILE_WIDTH, 1), entries.most(_TILE_HEIGHT, 1)
    elif down == height and (_is_split_by_gdal(entries) or _is_split_by_libtiff(entries)):
        down = 1
    return Directory(
        block=(down, across),
        bands=entries.most(_SAMPLES, 1),
        together=entries.most(_PLANAR, 1) != 2,
        value_bytes=max(1, -(-entries.most(_BITS, 1) // 8)),
        geo=entries.texts.get(_GEO_TEXT, b""),
        metadata=entries.texts.get(_GDAL_TEXT, b""),
    )


def _is_split_by_gdal(entries: _Entries) -> bool:
    """Whether the one strip of an image is read row by row, which GDAL does for bytes."""
    return entries.most(_BITS, 1) == 8 and entries.most(_HEIGHT, 1) > 2000


def _is_split_by_libtiff(entries: _Entries) -> bool:
    """Whether it is read in strips of a few rows: one that is not compressed, if it was ever written."""
    places, sizes = entries.numbers.get(_OFFSETS, ()), entries.numbers.get(_SIZES, ())
    there = len(places) == len(sizes) == 1 and min(*places, *sizes) > 0
    return there and entries.most(_COMPRESSION, 1) == 1


class _Reader:
    def __init__(self, file: BinaryIO, order: str, *, big: bool) -> None:
        self._file, self._order, self._big = file, order, big

    @classmethod
    def of(cls, file: BinaryIO) -> tuple[_Reader, int] | None:
        """A reader, and where the first directory is; ``None`` for what is no TIFF."""
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return None
        version = struct.unpack_from(f"{order}H", head, 2)[0]
        if version not in (42, 43):
            return None
        reader = cls(file, order, big=version == 43)
        return reader, reader._number(8 if reader._big else 4, "Q" if reader._big else "I")

    def directory(self, place: int) -> _Entries:
        counted, size, pointer = ("Q", 20, "Q") if self._big else ("H", 12, "I")
        count = min(self._number(place, counted), _MOST_ENTRIES)
        place += struct.calcsize(counted)
        raw = self._bytes(place, count * size)
        found = _Entries({}, {}, self._number(place + count * size, pointer))
        for at in range(0, len(raw) - size + 1, size):
            tag, kind, length = struct.unpack_from(f"{self._order}HH{pointer}", raw, at)
            inline = raw[at + size - struct.calcsize(pointer) : at + size]
            if tag in _TEXTS:
                found.texts[tag] = found.texts.get(tag, b"") + self._held(
                    inline, pointer, min(length * _SIZES_OF.get(kind, 1), MOST_TEXT)
                )
            elif tag in _NUMBERS and kind in _TYPES:
                values = self._values(inline, pointer, min(length, _MOST_VALUES), _TYPES[kind])
                found.numbers[tag] = found.numbers.get(tag, ()) + values
        return found

    def _values(self, inline: bytes, pointer: str, count: int, kind: str) -> tuple[int, ...]:
        each = struct.calcsize(kind)
        raw = self._held(inline, pointer, count * each)
        return struct.unpack(f"{self._order}{len(raw) // each}{kind}", raw[: len(raw) // each * each])

    def _held(self, inline: bytes, pointer: str, length: int) -> bytes:
        """Of an entry, what fits into it, or what it points at."""
        if length <= len(inline):
            return inline[:length]
        return self._bytes(struct.unpack(self._order + pointer, inline)[0], length)

    def _number(self, place: int, kind: str) -> int:
        raw = self._bytes(place, struct.calcsize(kind))
        return int(struct.unpack(self._order + kind, raw)[0]) if len(raw) == struct.calcsize(kind) else 0

    def _bytes(self, place: int, length: int) -> bytes:
        try:
            self._file.seek(place)
            return self._file.read(length)
        except (OverflowError, ValueError, OSError):
            return b""
