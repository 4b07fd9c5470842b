"""Bands whose numbers are classes, flags or masks: between two of them there is nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from geomoe.printable import printable

__all__ = ["ClassValue", "categories", "category_names", "few_values", "names_classes"]

_NAMES = re.compile(
    r"(^|_)(scl|bqa|qa|qa60|c?fmask|classification|class(es)?|labels?|land_?cover|lulc|(cloud)?mask|flags?)(_|$)"
)
# Of files, whose names say many things.
_FILES = re.compile(r"(^|_)(scl|bqa|qa|qa60|c?fmask)(_|$)")
_LONGEST = 100
_FEW, _ENOUGH = 16, 4096
_AUX_BYTES = 2**22


@dataclass(frozen=True)
class ClassValue:
    """What a value of a band of classes stands for.

    Attributes:
        value: 1 to 255; 0 is no class.
        name: of the class.
        colour: in which it is drawn, as ``#rrggbb``.
    """

    value: int
    name: str
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Its colour, 0 to 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue


def category_names(names: Mapping[int, str]) -> bytes:
    """The file ``.aux.xml`` by which GDAL, and what is built on it, knows the classes of a map by name.

    Args:
        names: of the classes, by their values from 1.
    """
    each = (escape(printable(names.get(value, ""))) for value in range(1, max(names) + 1))
    lines = "\n".join(f"      <Category>{name}</Category>" for name in ("no data", *each))
    return (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{lines}\n    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    ).encode()


def names_classes(name: str, *, file: bool = False) -> bool:
    """Whether a band is called as those that hold classes or flags are, such as ``SCL`` or ``QA_PIXEL``.

    Args:
        name: of the band, or of a file with one band that has none.
        file: whether it is the file's.
    """
    words = "_".join(re.findall(r"[a-z0-9]+", name[:_LONGEST].casefold()))
    return (_FILES if file else _NAMES).search(words) is not None


def categories(path: Path, tags: Mapping[str, str], band_tags: Sequence[Mapping[str, str]]) -> list[int]:
    """Bands, from 1, of which a file or the ``.aux.xml`` beside it names the categories."""
    whole = len(band_tags) == 1 and _thematic(tags)
    found = [band for band, own in enumerate(band_tags, 1) if whole or _thematic(own)]
    try:
        with path.with_name(path.name + ".aux.xml").open("rb") as file:
            parts = file.read(_AUX_BYTES).split(b"<PAMRasterBand")[1:]
    except OSError:
        return found
    for part in parts:
        number = re.match(rb'\s+band="(\d{1,5})"', part)
        # Of an attribute table, a column of names (GFU_Name) tells classes from a histogram.
        named = b"<CategoryNames" in part or b"<Usage>2</Usage>" in part
        if number is not None and named:
            found.append(int(number[1]))
    return found


def _thematic(tags: Mapping[str, str]) -> bool:
    return any(
        # Without a number it is of secrecy.
        (key.casefold().startswith(("classification", "category_", "categories")) and re.search(r"\d", value))
        or (key.casefold() == "layer_type" and value.casefold() == "thematic")
        for key, value in tags.items()
    )


def few_values(values: NDArray[np.float32]) -> int | None:
    """How many different values a sample of a band has, where these are as few as of classes."""
    if values.size < _ENOUGH or np.unique(values[:: values.size // _ENOUGH]).size > _FEW:
        return None
    count = np.unique(values).size
    return count if 1 < count <= _FEW else None
