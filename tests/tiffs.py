"""TIFF files written by hand: they say what no library would write."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

__all__ = ["METADATA", "Value", "geo_tags", "image_tags", "tiff_bytes", "write_tiff"]

METADATA = 42112
Value = int | bytes | tuple[int, ...]


def image_tags(width: int = 64, height: int = 64, **tags: int) -> dict[int, Value]:
    """Of an image of one 8-bit band in one strip; ``t322=16`` sets tag 322."""
    said: dict[int, Value] = {
        256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: bytes(64) * 64, 277: 1, 278: height, 279: 4096,
    }  # fmt: skip
    return said | {int(name.removeprefix("t")): value for name, value in tags.items()}


def geo_tags(citation: str) -> dict[int, Value]:
    """A grid of 10 m, in a projected CRS of the user's whose citations are a text."""
    text = citation.encode() + b"|"
    of = len(text)
    keys = [
        (1024, 0, 1, 32767), (1025, 0, 1, 1), (1026, 34737, of, 0), (2048, 0, 1, 32767), (2049, 34737, of, 0),
        (3072, 0, 1, 32767), (3073, 34737, of, 0), (3074, 0, 1, 16033), (3076, 0, 1, 9001),
    ]  # fmt: skip
    directory = (1, 1, 0, len(keys), *(number for key in keys for number in key))
    return {
        33550: struct.pack("<3d", 10, 10, 0),
        33922: struct.pack("<6d", 0, 0, 0, 400000, 5000000, 0),
        34735: directory,
        34737: text,
    }


def tiff_bytes(*directories: Mapping[int, Value]) -> bytes:
    """A little-endian TIFF of images: numbers are LONG, lists of them SHORT, bytes what their tag has.

    Tag 273, of where the pixels are, takes the pixels.
    """
    body = bytearray(b"II*\0" + bytes(4))
    link = 4
    for tags in directories:
        entries = b""
        for tag, value in sorted(tags.items()):
            if tag == 273 and isinstance(value, bytes):
                value, body = len(body), body + value
            if isinstance(value, int):
                entries += struct.pack("<HHII", tag, 4, 1, value)
                continue
            raw = struct.pack(f"<{len(value)}H", *value) if isinstance(value, tuple) else value
            kind, each = {33550: (12, 8), 33922: (12, 8), 34264: (12, 8), 34735: (3, 2)}.get(tag, (2, 1))
            entries += struct.pack("<HHI", tag, kind, len(raw) // each)
            entries += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", len(body))
            body += raw + bytes(len(raw) % 2)
        body[link : link + 4] = struct.pack("<I", len(body))
        body += struct.pack("<H", len(tags)) + entries
        link = len(body)
        body += bytes(4)
    return bytes(body)


def write_tiff(path: Path, *directories: Mapping[int, Value]) -> Path:
    """As :func:`tiff_bytes`, in a file."""
    path.write_bytes(tiff_bytes(*directories))
    return path
