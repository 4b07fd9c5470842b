"""Names by which bands are known: one vocabulary for GeoTIFFs, products and items."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["RGB", "WAVELENGTHS", "common_name", "known_as", "listed", "matching"]

RGB = ("red", "green", "blue")
"""In the order in which models are shown them."""

WAVELENGTHS = {
    "coastal": 0.44, "blue": 0.49, "green": 0.56, "yellow": 0.6, "red": 0.66, "rededge": 0.74,
    "rededge071": 0.705, "rededge075": 0.74, "rededge078": 0.78, "rededge1": 0.705, "rededge2": 0.74,
    "rededge3": 0.78, "nir": 0.84, "nir08": 0.865, "nir09": 0.945, "pan": 0.6, "cirrus": 1.375,
    "swir16": 1.61, "swir22": 2.2, "lwir": 11.0, "lwir11": 10.9, "lwir12": 12.0,
}  # fmt: skip
"""Of each common name, as STAC has them, the centre in micrometres."""

_WRITTEN = {
    "coastalaerosol": "coastal", "aerosol": "coastal", "ultrablue": "coastal", "swir": "swir16",
    "swir1": "swir16", "swir2": "swir22", "panchromatic": "pan", "tir": "lwir", "tir1": "lwir11",
    "tir2": "lwir12", "nir1": "nir", "nirnarrow": "nir08", "narrownir": "nir08",
}  # fmt: skip
# Before words are distinguished: "infra-red" is not red, nor is "red edge".
_PHRASES = (
    (re.compile(r"near[\s_-]*infra[\s_-]*red"), "nir"),
    (re.compile(r"short[\s_-]*wave(?:length)?[\s_-]*infra[\s_-]*red[\s_-]*"), "swir"),
    (re.compile(r"(?:thermal|long[\s_-]*wave)[\s_-]*infra[\s_-]*red[\s_-]*"), "tir"),
    (re.compile(r"infra[\s_-]*red"), "ir"),
    (re.compile(r"red[\s_-]*edge[\s_-]*"), "rededge"),
)
_LONGEST = 100
_CODE = re.compile(r"b(0?)([1-9]\d?a?)")

# By the numbers of their bands.
_SENTINEL2 = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "rededge1", "6": "rededge2", "7": "rededge3",
    "8": "nir", "8a": "nir08", "9": "nir09", "10": "cirrus", "11": "swir16", "12": "swir22",
}  # fmt: skip
_LANDSAT8 = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir08", "6": "swir16", "7": "swir22",
    "8": "pan", "9": "cirrus", "10": "lwir11", "11": "lwir12",
}  # fmt: skip
_LANDSAT4 = {
    "1": "blue", "2": "green", "3": "red", "4": "nir08", "5": "swir16", "6": "lwir", "7": "swir22",
    "8": "pan",
}  # fmt: skip
_ALIKE = {number: _LANDSAT8[number] for number in ("2", "3", "4")}  # of Sentinel-2, too
_LETTERS = {"r": "red", "g": "green", "b": "blue", "n": "nir", "nir": "nir"}
# Landsat's products by their names: sensor, satellite.
_LANDSAT_FILE = re.compile(r"L[COTEM]0?([4-9])[_\d]")


def common_name(text: str) -> str | None:
    """The common name that words say, as ``red`` of ``Red (665 nm)``; ``None`` for none, or two."""
    words = _words(text)
    whole = "".join(words)
    found = {_WRITTEN.get(word, word) for word in words if _WRITTEN.get(word, word) in WAVELENGTHS}
    if _WRITTEN.get(whole, whole) in WAVELENGTHS:
        found = {_WRITTEN.get(whole, whole)}
    return found.pop() if len(found) == 1 else None


def known_as(names: Sequence[Sequence[str]], product: str = "") -> list[tuple[str, ...]]:
    """By what names the bands of a scene may be called.

    ``B04`` is ``B4`` and, by its neighbours, ``red``; so is ``SR_B4`` of Landsat 8, but not of Landsat 7.
    Numbers that mean one band to one sensor and another to the next get no colour.

    Args:
        names: what is said of each band, the name that counts most first; may be nothing.
        product: name of the file, which for Landsat's says the satellite.

    Returns:
        For each band these names and others, from the nearest to the most general.
    """
    rows = [[name for text in row if (name := text.strip())] for row in names]
    words = [[_words(name) for name in row] for row in rows]
    codes = [next(filter(None, map(_code, row)), None) for row in words]
    family = _family(
        [*filter(None, codes)], {word for row in words for name in row for word in name}, product
    )
    letters = {row[0].casefold() for row in rows if row} >= {"r", "g", "b"}
    commons = []
    for row, code in zip(rows, codes, strict=True):
        said = next(filter(None, map(common_name, row)), None)
        if said is None and letters and row:
            said = _LETTERS.get(row[0].casefold())
        commons.append(said or (family.get(code[1]) if code else None))
    found = []
    for row, code, common in zip(rows, codes, commons, strict=True):
        known = [*row]
        if code is not None:
            known += [f"B{code[1].upper()}", f"B{code[1].upper():0>2}"]
        if common is not None:
            known.append(common)
        if common == "nir08" and "nir" not in commons:  # whoever asks for it means the one there is
            known.append("nir")
        first: dict[str, str] = {}
        for name in known:
            first.setdefault(name.casefold(), name)
        found.append(tuple(first.values()))
    return found


def matching(text: str, names: Sequence[Sequence[str]]) -> list[int]:
    """Places where ``text`` is the name, in any case; else where it is one of the others that follow it."""
    wanted = text.strip().casefold()
    first = [i for i, n in enumerate(names) if n and n[0].casefold() == wanted]
    return first or [i for i, n in enumerate(names) if wanted in [other.casefold() for other in n[1:]]]


def listed(names: Sequence[str]) -> str:
    """Names in one line that is not too long."""
    return f"{', '.join(map(_short, names[:24]))}{', ...' if len(names) > 24 else ''}"


def _short(name: str) -> str:
    return name if len(name) <= 40 and name.isprintable() else repr(name[:40])


def _words(text: str) -> list[str]:
    text = text[:_LONGEST].casefold()
    for phrase, word in _PHRASES:
        text = phrase.sub(word, text)
    return re.findall(r"[a-z0-9]+", text)


def _code(words: Sequence[str]) -> tuple[bool, str] | None:
    """Whether a zero comes before the number of a band, and that number; ``None`` where there is none."""
    found = [match for word in words if (match := _CODE.fullmatch(word))]
    if len(found) != 1 or "refl" in words:  # as MODIS calls bands that others count otherwise
        return None
    return found[0][1] == "0", found[0][2]


def _family(codes: Sequence[tuple[bool, str]], words: set[str], product: str) -> Mapping[str, str]:
    """What the numbers mean, as far as all of them together tell."""
    numbers, zeros = {number for _, number in codes}, any(zero for zero, _ in codes)
    file = _LANDSAT_FILE.match(product)
    if (file is not None and file[1] < "8") or {"tm", "etm"} & words:
        return _LANDSAT4
    if file is not None or {"sr", "st", "oli"} & words:
        old = numbers >= {"1", "2", "3", "4", "5", "7"} and "6" not in numbers  # which is thermal there
        return _LANDSAT4 if old else _LANDSAT8
    if {"8a", "12"} & numbers or (True, "8") in codes:
        return _SENTINEL2
    if numbers >= {"2", "3", "4", "8"} and not {"1", "5", "6", "7"} & numbers:
        return _SENTINEL2
    if "1" in numbers and not zeros:
        return {}  # blue to many sensors, coastal to these
    if not zeros and numbers >= {"2", "3", "4", "5"}:
        return _LANDSAT8
    return _ALIKE
