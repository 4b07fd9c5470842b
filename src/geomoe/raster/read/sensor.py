"""Which sensor a scene is of, by its product, its item, its tags or its file's name; never by its looks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["MTF", "family", "sensor_mtf", "sensor_of_file", "sensor_of_item", "sensor_of_tags"]

MTF: dict[str, dict[float, float]] = {"sentinel-2": {10.0: 0.2, 20.0: 0.2}}
"""MTF at the Nyquist frequency of sensors, by the ground sampling distance of their bands in metres.

Sentinel-2: the bands of 10 and 20 m were specified to lie between 0.15 and 0.30; the Data Quality Reports of
ESA's Mission Performance Centre compare what is measured in orbit with that, band by band. 0.2 is what the
degradation ``mtf`` has. Of Landsat's OLI and of cameras in aeroplanes no figure to cite is known here."""

_FAMILIES = {**{f"landsat-{number}": "landsat" for number in range(4, 10)}, "naip": "aerial"}

# Whatever surrounds them: "Sentinel-2A MSI", "LANDSAT_8 OLI_TIRS", "Landsat 9", "naip".
_SAID: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?<![a-z0-9]){pattern}(?![a-z0-9])"), name)
    for pattern, name in (
        (r"sentinel[\s_-]?2[a-d]?", "sentinel-2"),
        (r"landsat[\s_-]?([4-9])", "landsat-{}"),
        (r"naip", "naip"),
        (r"planetscope", "planetscope"),
        (r"worldview[\s_-]?([1-4])", "worldview-{}"),
        (r"pl[eé]iades", "pleiades"),
    )
)
# How those who distribute them name products and files.
_FILES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"S2[A-D]_(?:MSIL(?:1C|2A)_\d{8}T\d{6}_N\d{4}_|OPER_|USER_|\d\d[A-Z]{3}_\d{8}_)"),
        "sentinel-2",
    ),
    (re.compile(r"(?:L2A_)?T\d\d[A-Z]{3}_\d{8}T\d{6}_(?:B\d[\dA]|TCI)(?![A-Za-z0-9])"), "sentinel-2"),
    (re.compile(r"L[COTE]0([4-9])_L\d[A-Z]{2}_\d{6}_\d{8}_"), "landsat-{}"),
    (re.compile(r"L[COTE]([4-9])\d{13}[A-Z]{3}\d\d"), "landsat-{}"),
    (re.compile(r"m_\d{7}_(?:ne|nw|se|sw)_\d\d_"), "naip"),
    (re.compile(r"\d{8}_\d{6}_\w+_3B_(?:AnalyticMS|Visual)"), "planetscope"),
)
# Tags whose texts are of the sensor, the product or the source; others may speak of anything.
_TAGS = re.compile(
    r"(?:^|_)(?:SATELLITE(?:_?ID)?|SPACECRAFT(?:_NAME|_ID)?|PLATFORM|CONSTELLATION|MISSION|SENSOR(?:_?ID)?|"
    r"PRODUCT_URI|PRODUCT_ID|SOURCE|TIFFTAG_IMAGEDESCRIPTION|TIFFTAG_DOCUMENTNAME)$",
    re.IGNORECASE,
)
_LONGEST = 1000
_SAME_GSD = 0.05
"""Within which a pixel is one of the sensor's own, and not resampled."""


def family(sensor: str | None) -> str | None:
    """Sensors that weights need not tell apart: ``landsat`` of ``landsat-8``, ``aerial`` of ``naip``."""
    return _FAMILIES.get(sensor or "", sensor)


def sensor_mtf(sensor: str | None, gsd: float | None) -> float | None:
    """MTF at the Nyquist frequency of pixels that are the sensor's own, not resampled; ``None`` if unknown.

    Args:
        sensor: as the functions below name it.
        gsd: side of a pixel, metres.
    """
    own = MTF.get(sensor or "", {})
    return next((own[side] for side in own if gsd and math.isclose(gsd, side, rel_tol=_SAME_GSD)), None)


def sensor_of_file(name: str) -> str | None:
    """The one sensor that the name of a file speaks of, as products of it are named or in words."""
    return _one([name])


def sensor_of_tags(tags: Mapping[str, str], domains: Mapping[str, Mapping[str, str]]) -> str | None:
    """The one sensor that tags of a raster speak of; ``None`` where they speak of none, or of two.

    Args:
        tags: of the default domain.
        domains: the others; of ``IMAGERY``, in which GDAL has the satellite, any name is believed.
    """
    satellite = domains.get("IMAGERY", {}).get("SATELLITEID", "")
    return _one([satellite], otherwise=satellite) or _one(
        text for tag, text in tags.items() if _TAGS.search(tag)
    )


def sensor_of_item(item: Mapping[str, Any]) -> str | None:
    """The sensor of a STAC item, by its platform, constellation and collection; else the platform itself."""
    properties = item.get("properties")
    said = properties if isinstance(properties, Mapping) else {}
    texts = [said.get("platform"), said.get("constellation"), item.get("collection")]
    names = [text for text in texts if isinstance(text, str)]
    platform = next((text for text in texts[:2] if isinstance(text, str)), "")
    return _one(names, otherwise=platform)


def _one(texts: Iterable[str], otherwise: str = "") -> str | None:
    """The sensor that all texts together speak of; if they speak of none, a name as it is given."""
    found = {name for text in texts for name in _spoken_of(text[:_LONGEST])}
    if found or not re.fullmatch(r"[\w .+-]{2,40}", otherwise):
        return found.pop() if len(found) == 1 else None
    return re.sub(r"[\s_]+", "-", otherwise.strip().lower())


def _spoken_of(text: str) -> Iterator[str]:
    for pattern, name in _SAID:
        yield from (name.format(*match.groups()) for match in pattern.finditer(text.lower()))
    for word in re.split(r"[\s/\\,;\"]+", text):
        for pattern, name in _FILES:
            if match := pattern.match(word):
                yield name.format(*match.groups())
