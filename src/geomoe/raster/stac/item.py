"""STAC items: what a file beside a raster says of it, written, read and checked without a network."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from rasterio.crs import CRS
from rasterio.enums import WktVersion

from geomoe.errors import GeomoeError
from geomoe.files import read_small
from geomoe.printable import printable
from geomoe.raster.read.classes import ClassValue
from geomoe.raster.read.dates import YEARS
from geomoe.raster.read.env import gdal_env
from geomoe.raster.read.known import pixel_metres
from geomoe.raster.stac.footprint import Footprint, footprint
from geomoe.raster.stac.links import href
from geomoe.raster.write.metadata import CogMetadata

__all__ = [
    "COG",
    "EXTENSIONS",
    "ITEM",
    "check_item",
    "class_object",
    "file_fields",
    "item_bytes",
    "json_number",
    "raster_item",
    "read_item",
    "sha256",
    "when",
]

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
ITEM = "application/geo+json"
EXTENSIONS = {
    "projection": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "mlm": "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
}
"""Of each extension that is written here, the address by which an item names it."""

# Which schema checks what is read. What geomoe 0.1 wrote by MLM 1.4 is right by that of 1.5, too.
_SCHEMAS = {address: name for name, address in EXTENSIONS.items()} | {
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json": "mlm"
}

_MAX_BYTES = 2**24
_MAX_VALUES = 10_000
"""Of an item of 256 bands there are about 2,500."""
# Each digit in one way only, or a list that ends in null takes time exponential in its digits.
_NUMBERS = re.compile(r"\[\n\s*([-+.eE0-9]+(?:,\n\s*[-+.eE0-9]+)*)\n\s*\]")
_SHA256 = "1220"
"""What a multihash begins with that is a SHA-256 (0x12) of 32 bytes (0x20)."""


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_fields(path: Path) -> dict[str, Any]:
    """Size and checksum of a file, as its asset has them; raises OSError if it cannot be read."""
    return {"file:size": path.stat().st_size, "file:checksum": _SHA256 + sha256(path)}


def when(acquired: str | None) -> dict[str, Any]:
    """The time of what a raster shows, as an item must tell it."""
    if acquired is not None and "/" not in acquired:
        return {"datetime": acquired}
    if acquired is not None:
        start, end = acquired.split("/")
    else:  # an item must then give a span, neither open nor beyond what readers can hold
        start, end = f"{YEARS[0]}-01-01T00:00:00Z", f"{YEARS[1]}-12-31T23:59:59Z"
    return {"datetime": None, "start_datetime": start, "end_datetime": end}


def raster_item(
    path: Path,
    meta: CogMetadata,
    nodata: float | None,
    acquired: str | None,
    outline: Footprint | None = None,
) -> dict[str, Any]:
    """What a GeoTIFF is and where it lies: an item without links, history, size and checksum.

    Args:
        path: of the file to be.
        meta: of the file.
        nodata: of the file.
        acquired: as `Scene` has it.
        outline: of the file, where it is known already.
    """
    place = outline or footprint(meta)
    named = ("projection", "raster", "processing", "file", *(("classification",) if meta.classes else ()))
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSIONS[name] for name in named],
        "id": path.stem,
        "geometry": None if place is None else place.geometry,
        **({} if place is None else {"bbox": place.bbox}),
        "properties": {**when(acquired), **_projection(meta)},
        "links": [],
        "assets": {
            "data": {
                "href": href(path.name),
                "type": COG,
                "roles": ["data"],
                "raster:sampling": "point" if meta.tags.get("AREA_OR_POINT") == "Point" else "area",
                "bands": _bands(meta, nodata),
            }
        },
    }


def _projection(meta: CogMetadata) -> dict[str, Any]:
    """The grid; a raster that only points or polynomials place has a shape and none."""
    shape = {"proj:code": None, "proj:shape": [meta.height, meta.width]}
    if meta.transform is None or meta.gcps:
        return shape
    t = meta.transform
    if not np.isfinite(tuple(t)).all():
        return shape
    corners = [t * (x, y) for x in (0, meta.width) for y in (0, meta.height)]
    xs, ys = ([corner[i] for corner in corners] for i in (0, 1))
    return {
        **shape,
        **({} if meta.crs is None else _crs(meta.crs)),
        "proj:bbox": [min(xs), min(ys), max(xs), max(ys)],
        "proj:transform": [t.a, t.b, t.c, t.d, t.e, t.f],
    }


def _crs(crs: CRS) -> dict[str, Any]:
    with gdal_env():
        authority = crs.to_authority(confidence_threshold=100)
        if authority is not None:
            return {"proj:code": ":".join(authority)}
        return {"proj:code": None, "proj:wkt2": crs.to_wkt(version=WktVersion.WKT2_2019)}


def _bands(meta: CogMetadata, nodata: float | None) -> list[dict[str, Any]]:
    side = pixel_metres(meta.transform, meta.crs)
    names = [name or f"band {band}" for band, name in enumerate(meta.descriptions, 1)]
    if len(set(names)) < len(names):  # in an item names are unique
        names = [f"{name} ({band})" for band, name in enumerate(names, 1)]
    return [
        {
            "name": name,
            "data_type": meta.dtype,
            **({} if nodata is None else {"nodata": json_number(nodata)}),
            **({"unit": meta.units[i]} if meta.units[i] else {}),
            **{
                f"raster:{field}": value
                for field, value in (("scale", meta.scales[i]), ("offset", meta.offsets[i]))
                if math.isfinite(value)
            },
            **({} if side is None else {"raster:spatial_resolution": side}),
            **({"classification:classes": _classes(meta)} if meta.classes else {}),
        }
        for i, name in enumerate(names)
    ]


def class_object(of: ClassValue) -> dict[str, Any]:
    """A class as the extension has it: a name that programs can use, and as title its own."""
    return {
        "value": of.value,
        "name": re.sub("[^0-9A-Za-z]+", "-", of.name).strip("-").lower() or f"class-{of.value}",
        "title": of.name,
        "color_hint": of.colour[1:].upper(),
    }


def _classes(meta: CogMetadata) -> list[dict[str, Any]]:
    named = [class_object(each) for each in meta.classes]
    return [*named, {"value": 0, "name": "no-data", "title": "no data", "nodata": True}]


def json_number(value: float) -> float | int | str:
    """As JSON can hold it: by name where it is no number to JSON."""
    if not math.isfinite(value):
        return str(value)  # nan, inf, -inf: the names that STAC has for them
    return int(value) if float(value).is_integer() else value


def item_bytes(item: Mapping[str, Any], name: str) -> bytes:
    """An item as it is written, always the same, after a check of what is to be written.

    Args:
        item: of JSON values.
        name: of its file, for messages.

    Raises:
        GeomoeError: as `check_item`, for what JSON cannot hold, or for more than `read_item` would read.
    """
    try:
        text = json.dumps(item, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise GeomoeError(f"{name} cannot be written as JSON: {error}") from error
    if len(text) > _MAX_BYTES:
        raise GeomoeError(
            f"{name} would have {len(text)} bytes, more than {_MAX_BYTES}; shorten the names of bands "
            "and units, or what the card of the weights says"
        )
    check_item(json.loads(text), name)
    # Numbers of a list in one line. No text is touched: there is no line break inside one.
    return _NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text).encode() + b"\n"


def read_item(path: Path) -> dict[str, Any]:
    """A STAC item from a local file, checked.

    Raises:
        GeomoeError: if it is missing, too large, no JSON, or not a valid item.
    """
    if not path.is_file():
        raise GeomoeError(f"{path} is not there; expected the STAC item of the file beside it")
    text = read_small(path, _MAX_BYTES)
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise GeomoeError(f"{path.name} cannot be read as JSON: {what}; write the output again") from error
    check_item(found, path.name)
    item: dict[str, Any] = found
    return item


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")


def check_item(item: object, name: str) -> None:
    """Check an item against the schema of STAC and those of its extensions that are known here.

    Args:
        item: of JSON values.
        name: of its file, for messages.

    Raises:
        GeomoeError: with the place of the first thing that is wrong.
    """
    _check_values(item, name)
    named = item.get("stac_extensions") if isinstance(item, dict) else None
    known = [name for address, name in _SCHEMAS.items() if isinstance(named, list) and address in named]
    for schema in ("item", *known):
        try:
            error = best_match(_validator(schema).iter_errors(item))
        except RecursionError:
            raise GeomoeError(f"{name} is not a valid STAC item: it is nested too deeply") from None
        if error is not None:
            place = "/".join(map(str, error.absolute_path)) or "the item"
            what = error.message
            what = what if len(what) <= 160 else f"{what[:70]} ... {what[-85:]}"
            raise GeomoeError(printable(f"{name} is not a valid STAC item ({schema}): {place}: {what}"))


def _check_values(item: object, name: str) -> None:
    """Refuse more values than a schema is compared with in seconds: a point of an outline takes one of ten
    thousandths, and what is wrong with it much memory. What only geomoe reads does not count."""
    left, waiting = _MAX_VALUES, [item]
    while waiting:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left -= len(inner)
        if left < 0:
            raise GeomoeError(
                f"{name} is not a STAC item that can be checked: it has more than {_MAX_VALUES} values; "
                "write the output again"
            )
        waiting += (
            [v for k, v in value.items() if not k.startswith("geomoe:")] if isinstance(value, dict) else inner
        )


@cache
def _validator(name: str) -> Draft202012Validator:
    text = (files("geomoe.raster.stac") / "schemas" / f"{name}.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))
