"""STAC items whose assets are local files: the bands of one grid as a scene."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geomoe.errors import GeomoeError
from geomoe.files import read_small
from geomoe.raster.formats.offsets import offsets_due
from geomoe.raster.formats.product import ProductBand, choose_bands, coarser_bands, only_names
from geomoe.raster.formats.stack import MAX_FILES, open_stack
from geomoe.raster.read.dates import in_utc
from geomoe.raster.read.names import RGB, WAVELENGTHS, known_as, listed, matching
from geomoe.raster.read.scene import Scene, open_file
from geomoe.raster.read.sensor import sensor_of_item
from geomoe.raster.read.text import finite, read_json
from geomoe.raster.stac.item import when
from geomoe.raster.stac.links import local_href

__all__ = ["Asset", "StacItem", "asset_files", "local_href", "open_item", "read_item"]

_DATA_ROLES = {"data", "reflectance"}
_OTHER_ROLES = {"thumbnail", "overview", "visual", "metadata"}
_OTHER_KEYS = {"thumbnail", "overview", "visual", "preview", "rendered_preview"}
_MEDIA = ("image/tiff", "image/x.geotiff", "image/vnd.stac.geotiff", "image/jp2")
_ENDINGS = (".tif", ".tiff", ".jp2")


@dataclass(frozen=True)
class BandInfo:
    """What an item says of a band of an asset; see `ProductBand`.

    Attributes:
        names: its name, its common name; may be empty.
        wavelength: centre in micrometres, if it is known.
        classes: whether it lists the classes, or flags, that values stand for.
    """

    names: tuple[str, ...]
    wavelength: float | None
    scale: float
    offset: float
    nodata: float | None
    classes: bool


@dataclass(frozen=True)
class Asset:
    """A raster of measurements that an item points at.

    Attributes:
        key: its name in the item.
        href: where it is, as it is written there.
        named: whether its bands are described.
        bands: what is said of them; of one without a description there is one, that may be any number.
    """

    key: str
    href: str
    named: bool
    bands: tuple[BandInfo, ...]


@dataclass(frozen=True)
class StacItem:
    """What an item says.

    Attributes:
        assets: rasters of measurements.
        acquired: when, or when it began.
        sensor: see :func:`geomoe.raster.read.sensor.sensor_of_item`.
        gsd: ground sampling distance in metres.
        notes: what was decided.
    """

    assets: tuple[Asset, ...]
    acquired: str | None
    sensor: str | None
    gsd: float | None
    notes: tuple[str, ...]


@contextmanager
def open_item(path: Path, bands: str | Sequence[str | int] | None = None) -> Iterator[Scene]:
    """Open the local files that a STAC item points at.

    Args:
        path: of the item.
        bands: what will be selected, by asset key, band name or common name; without names, the described
            bands of the finest grid, red, green, blue first.

    Raises:
        GeomoeError: if it is no item, or what is wanted of it cannot be used or is not on this machine.
    """
    item = read_item(path.name, read_small(path))
    here, missing = _located(path, item)
    wanted = only_names(bands)
    parts = _parts(path, here, wanted)
    if not parts:
        raise GeomoeError(_nothing(path, missing))
    for name in wanted or ():
        lacking = {key: href for key, (href, names) in missing.items() if matching(name, [names])}
        if lacking and not matching(name, [part.names for part in parts]):
            raise GeomoeError(_nothing(path, {key: (href, ()) for key, href in lacking.items()}))
    chosen = choose_bands(path.name, parts, bands)
    notes = [*item.notes]
    if missing and wanted is None:
        notes.append(f"not on this machine, and left out: {listed(sorted(missing))}")
    if bands is None:
        notes += coarser_bands(parts, chosen)
        if undescribed := [
            asset.key for asset, _ in here if not asset.named and any(a.named for a, _ in here)
        ]:
            notes.append(f"left out, as the item describes no bands of them: {listed(sorted(undescribed))}")
    files = [path, *dict.fromkeys(part.file for part in chosen)]
    with open_stack(
        path, chosen, files=files, acquired=item.acquired, sensor=item.sensor, gsd=item.gsd, notes=notes
    ) as scene:
        yield scene


def read_item(name: str, content: bytes) -> StacItem:
    """What a STAC item says of its rasters of measurements.

    Assets count as such by role (``data``, ``reflectance`` or none) and by media type or extension.

    Args:
        name: of the file, for messages.
        content: of the file.

    Raises:
        GeomoeError: if it is not an item, or a part of it is not of its type.
    """
    item = read_json(name, content)
    if item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        raise GeomoeError(
            f"{name} is {str(item.get('type'))[:40]!r}; expected a STAC item: a Feature with assets"
        )
    properties = _table(name, item.get("properties") or {}, "properties")
    assets = [_asset(name, str(key), _table(name, value, "asset")) for key, value in item["assets"].items()]
    rasters = _known([asset for asset in assets if asset is not None], name)
    due, notes = offsets_due({band.offset for asset in rasters for band in asset.bands}, properties)
    if not due:
        rasters = [replace(a, bands=tuple(replace(b, offset=0.0) for b in a.bands)) for a in rasters]
    unknown = all(properties.get(key) == value for key, value in when(None).items())
    times = [] if unknown else [properties.get(key) for key in ("datetime", "start_datetime")]
    acquired = next((time for t in times if isinstance(t, str) and (time := in_utc(t))), None)
    gsd = finite(properties.get("gsd"))
    return StacItem(tuple(rasters), acquired, sensor_of_item(item), gsd if gsd and gsd > 0 else None, notes)


def _known(assets: Sequence[Asset], item: str) -> list[Asset]:
    """Assets whose bands have all names that they are known by, and the wavelengths of these."""
    known = iter(known_as([info.names or (asset.key,) for asset in assets for info in asset.bands], item))
    told = []
    for asset in assets:
        bands = []
        for info, names in zip(asset.bands, known, strict=False):
            centre = next((WAVELENGTHS[name] for name in names if name in WAVELENGTHS), None)
            bands.append(
                replace(info, names=names if info.names else (), wavelength=info.wavelength or centre)
            )
        told.append(replace(asset, bands=tuple(bands)))
    return told


def asset_files(path: Path) -> list[Path]:
    """The local files of an item's assets of measurements; raises as `read_item`."""
    assets = read_item(path.name, read_small(path)).assets
    return [place for asset in assets if (place := local_href(path, asset.href)) is not None]


def _asset(name: str, key: str, asset: dict[str, Any]) -> Asset | None:
    href, media = asset.get("href"), asset.get("type")
    if not isinstance(href, str) or not href or len(href) > 4096:
        raise GeomoeError(f"asset {key[:40]!r} of {name} has no href; expected the path of a file")
    roles = asset.get("roles") or []
    if not isinstance(roles, list):
        raise GeomoeError(f"asset {key[:40]!r} of {name} has roles that are no list")
    given = {role for role in roles if isinstance(role, str)}
    raster = str(media).lower().startswith(_MEDIA) or href.lower().endswith(_ENDINGS)
    if not raster or given & _OTHER_ROLES or key.lower().removesuffix("-jp2") in _OTHER_KEYS:
        return None
    if given and not given & _DATA_ROLES:
        return None
    bands = [_rows(name, asset, field) for field in ("bands", "eo:bands", "raster:bands")]
    count = max(map(len, bands))
    rows = [
        {k: v for given in reversed(bands) if i < len(given) for k, v in given[i].items()}
        for i in range(count)
    ]
    infos = tuple(_band(asset, row) for row in rows or [{}])
    return Asset(_plain(key) or "asset", href, any(info.names for info in infos), infos)


def _band(asset: Mapping[str, Any], row: Mapping[str, Any]) -> BandInfo:
    common = row.get("eo:common_name", row.get("common_name"))
    names = [text for value in (row.get("name"), common) if (text := _plain(value))]
    centre = finite(row.get("eo:center_wavelength", row.get("center_wavelength")))

    def said(*keys: str) -> object:
        return next(
            (given[key] for given in (row, asset) for key in keys if given.get(key) is not None), None
        )

    scale, offset = finite(said("scale", "raster:scale")), finite(said("offset", "raster:offset"))
    return BandInfo(
        names=tuple(dict.fromkeys(names)),
        wavelength=centre,
        scale=scale or 1.0,  # 0 would say that all values are the same
        offset=offset or 0.0,
        nodata=_nodata(said("nodata")),
        classes=bool(said("classification:classes") or said("classification:bitfields")),
    )


def _nodata(value: object) -> float | None:
    special = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
    return special[value] if isinstance(value, str) and value in special else finite(value)


def _rows(name: str, asset: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    rows = asset.get(field) or []
    if not isinstance(rows, list) or len(rows) > 4096:
        raise GeomoeError(f"{field} of an asset of {name} is no list of bands; check the item")
    return [_table(name, row, field) for row in rows]


def _table(name: str, value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GeomoeError(f"{name} has {what} of type {type(value).__name__}; expected a JSON object")
    return value


def _plain(value: object) -> str:
    """A name that can stand in a message and a file; others are dropped."""
    text = value.strip() if isinstance(value, str) else ""
    return text if text.isprintable() and len(text) <= 100 else ""


def _located(
    path: Path, item: StacItem
) -> tuple[list[tuple[Asset, Path]], dict[str, tuple[str, tuple[str, ...]]]]:
    """Assets with their files, and the others by key: where they are, and their names."""
    here, missing = [], {}
    for asset in item.assets:
        place = local_href(path, asset.href)
        if place is None or not os.path.exists(place):
            missing[asset.key] = (asset.href, (asset.key, *(n for band in asset.bands for n in band.names)))
        else:
            here.append((asset, place))
    return here, missing


def _parts(path: Path, here: Sequence[tuple[Asset, Path]], wanted: Sequence[str] | None) -> list[ProductBand]:
    """Parts to choose from: of assets whose bands are described, and of others where these do not do.

    Items list classes, water vapour and the like as data too, but describe no bands of them.
    """
    named = [pair for pair in here if pair[0].named]
    others = [pair for pair in here if not pair[0].named]
    if wanted is None:
        return _opened(path, named or others)
    of_interest = [
        (asset, file)
        for asset, file in named
        if any(matching(name, [(asset.key, *(n for b in asset.bands for n in b.names))]) for name in wanted)
    ]
    parts: list[ProductBand] = []
    for assets in (of_interest, of_interest + others, named + others):  # the last one to say what there is
        parts = _opened(path, assets)
        if all(matching(name, [part.names for part in parts]) for name in wanted):
            break
    return parts


def _opened(path: Path, assets: Sequence[tuple[Asset, Path]]) -> list[ProductBand]:
    """Parts of assets; what their files say counts, so these are looked into."""
    if len(assets) > MAX_FILES:
        raise GeomoeError(f"{path.name} has {len(assets)} files, more than {MAX_FILES}; choose some bands")
    found: list[tuple[Asset, Path, float, int, BandInfo]] = []
    rows: list[list[str]] = []
    for asset, file in assets:
        with open_file(file) as scene:
            data = sorted({*scene.data_bands, *scene.class_bands})
            said, aliases = scene.descriptions, scene.aliases
            transform = scene.transform
            # Where a scene has no grid, more pixels are finer ones.
            pixel = (
                1 / scene.width if transform is None else round(max(abs(transform.a), abs(transform.b)), 9)
            )
        if len(asset.bands) > 1 and len(asset.bands) not in (len(data), len(said)):
            raise GeomoeError(
                f"{file.name} has {len(data)} bands, {path.name} describes {len(asset.bands)}; correct that"
            )
        for place, band in enumerate(data):
            info = asset.bands[min(place, len(asset.bands) - 1)]
            own, others = _plain(said[band - 1]), [*aliases[band - 1]]
            names = [*info.names] if len(asset.bands) > 1 or len(data) == 1 else []
            names += [own, asset.key] if len(data) == 1 else [own or f"{asset.key} {band}"]
            rows.append([*names, *others])
            found.append((asset, file, pixel, band, info))
    parts = []
    for (asset, file, pixel, band, info), known in zip(found, known_as(rows, path.name), strict=True):
        # By the key at the end a band of one grid is told from that of another.
        first, *others = known[0], *sorted(known[1:], key=asset.key.__eq__)
        part = ProductBand(
            first,
            file,
            pixel,
            band,
            tuple(others),
            info.scale,
            info.offset,
            info.nodata,
            classes=info.classes,
        )
        parts.append((part, info))
    return [part for part, _ in _in_order(_once(parts))]


def _once(found: Sequence[tuple[ProductBand, BandInfo]]) -> list[tuple[ProductBand, BandInfo]]:
    """Each band of a grid once: items may have it as GeoTIFF, which is read faster, and as JPEG 2000."""
    best: dict[tuple[str, float], tuple[ProductBand, BandInfo]] = {}
    for part, info in found:
        key = (part.name.casefold(), part.pixel)
        if key in best and best[key][0].file == part.file:
            key = (f"{part.name} {part.band}", part.pixel)
        if key not in best or (best[key][0].file.suffix.lower() == ".jp2" != part.file.suffix.lower()):
            best[key] = (part, info)
    return list(best.values())


def _in_order(found: list[tuple[ProductBand, BandInfo]]) -> list[tuple[ProductBand, BandInfo]]:
    if any(info.wavelength is None for _, info in found):
        return found

    def place(pair: tuple[ProductBand, BandInfo]) -> tuple[int, float]:
        part, info = pair
        names = [name.casefold() for name in part.names]
        first = next((i for i, name in enumerate(RGB) if name in names), len(RGB))
        return first, (info.wavelength or 0.0) if first == len(RGB) else 0.0

    return sorted(found, key=place)


def _nothing(path: Path, missing: Mapping[str, tuple[str, tuple[str, ...]]]) -> str:
    if not missing:
        return f"{path.name} has no asset with data; expected a GeoTIFF or JPEG 2000 with role data, or none"
    key, (href, _) = next(iter(missing.items()))
    shown = href if len(href) <= 120 and href.isprintable() else repr(href[:120])
    return (
        f"asset {key} of {path.name} is at {shown}, which is no file on this machine; download it, and "
        "let the item point at the copy"
    )
