"""Sentinel-2 products (SAFE): the bands of one grid as a scene.

Of the format in use since December 2016, level 1C and 2A, as a folder or a zip: ``MTD_MSIL1C.xml`` or
``MTD_MSIL2A.xml`` at the top names the images, and how their values become reflectance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from geomoe.errors import GeomoeError
from geomoe.raster.formats.product import Checksum, ProductBand, choose_bands, coarser_bands
from geomoe.raster.formats.product_files import ProductFiles, open_folder, open_zip, plain_name
from geomoe.raster.formats.stack import open_stack
from geomoe.raster.read.dates import in_utc
from geomoe.raster.read.scene import Scene
from geomoe.raster.read.text import children, elements, finite, read_xml

__all__ = ["METADATA", "SafeProduct", "is_product", "open_safe", "product_around", "read_product"]

METADATA = ("MTD_MSIL1C.xml", "MTD_MSIL2A.xml")
_MANIFEST = "manifest.safe"
_CHECKSUMS = {"MD5": "md5", "SHA3-256": "sha3_256"}
_IMAGE = re.compile(r"_(B\d[\dA])(?:_(\d\d)m)?$", re.ASCII)

# In the order in which band_id counts them: the side of a pixel at level 1C in metres, and the common name.
_BANDS: dict[str, tuple[int, str]] = {
    "B01": (60, "coastal"), "B02": (10, "blue"), "B03": (10, "green"), "B04": (10, "red"),
    "B05": (20, "rededge1"), "B06": (20, "rededge2"), "B07": (20, "rededge3"), "B08": (10, "nir"),
    "B8A": (20, "nir08"), "B09": (60, "nir09"), "B10": (60, "cirrus"), "B11": (20, "swir16"),
    "B12": (20, "swir22"),
}  # fmt: skip
# Red, green, blue first, as models that are shown three bands at a time were trained; then by wavelength.
_ORDER = ("B04", "B03", "B02", *(band for band in _BANDS if band not in ("B02", "B03", "B04")))


@dataclass(frozen=True)
class SafeProduct:
    """What the metadata of a product say.

    Attributes:
        parts: all its bands of reflectance, on all grids; ``file`` is the name inside the product.
        acquired: when sensing began.
        notes: how values become reflectance, and why so.
    """

    parts: tuple[ProductBand, ...]
    acquired: str | None
    notes: tuple[str, ...]


def product_around(file: Path) -> Path | None:
    """The product whose band this file is; ``None`` for any other.

    Bands lie in ``GRANULE/*/IMG_DATA``, of level 2A in ``R10m`` and such in there.
    """
    if file.suffix.lower() != ".jp2" or _IMAGE.search(file.stem) is None:
        return None
    return next((up for up in file.parents[:5] if _has_metadata(up)), None)


def is_product(folder: Path) -> bool:
    """Whether a folder is meant as a product, by its name or by what it holds; perhaps a damaged one."""
    return folder.is_dir() and (folder.name.upper().endswith(".SAFE") or _has_metadata(folder))


def _has_metadata(folder: Path) -> bool:
    return any((folder / name).is_file() for name in METADATA)


@contextmanager
def open_safe(path: Path, bands: str | Sequence[str | int] | None = None) -> Iterator[Scene]:
    """Open the folder or zip of a Sentinel-2 product.

    Args:
        path: of the folder, by whatever name, or the zip.
        bands: what will be selected; without names, all bands of the finest grid.

    Raises:
        GeomoeError: if it is not a product that can be used, or a file of it is not as its manifest says.
    """
    with open_folder(path) if path.is_dir() else open_zip(path, METADATA) as files:
        metadata = [name for name in METADATA if files.holds(name)]
        if len(metadata) != 1:
            raise GeomoeError(_not_one(path, metadata))
        product = read_product(path.name, metadata[0], files.content(metadata[0]))
        chosen = choose_bands(path.name, product.parts, bands)
        if files.holds(_MANIFEST):
            chosen = _checked(path.name, files, chosen)
        placed = [replace(part, file=files.place(str(part.file))) for part in chosen]
        of = [path] if path.is_file() else [*(part.file for part in placed), files.place(metadata[0])]
        notes = [*product.notes, *(coarser_bands(product.parts, chosen) if bands is None else ())]
        with open_stack(
            path, placed, files=of, acquired=product.acquired, sensor="sentinel-2", notes=notes
        ) as scene:
            yield scene


def _not_one(path: Path, found: Sequence[str]) -> str:
    if found:
        return f"{path.name} has {' and '.join(found)}; expected one of them, give one product"
    try:
        old = any("_MTD_SAFL" in entry.name for entry in path.iterdir())
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}; check the path of the scene"
    if old:
        return (
            f"{path.name} is a Sentinel-2 product of the format before December 2016, which is not read; "
            "download it anew from the Copernicus archive, where it was processed again"
        )
    return (
        f"{path} is a folder without {' or '.join(METADATA)}; expected a Sentinel-2 product, or name a "
        "GeoTIFF, JPEG 2000 or STAC item inside it"
    )


def read_product(product: str, metadata: str, content: bytes) -> SafeProduct:
    """What product metadata say.

    Args:
        product: its name, for messages.
        metadata: name of the file, by which the level is known.
        content: of the file.

    Raises:
        GeomoeError: if something is missing or no number where one is expected.
    """
    name = f"{metadata} of {product}"
    root = read_xml(name, content)
    level = metadata[-7:-4]
    baseline = _text(root, "PROCESSING_BASELINE", name)
    if not re.fullmatch(r"\d\d\.\d\d", baseline, re.ASCII):
        raise GeomoeError(f"{name} has processing baseline {baseline[:20]!r}; expected one such as 05.09")
    quantity = "QUANTIFICATION_VALUE" if level == "L1C" else "BOA_QUANTIFICATION_VALUE"
    divisor = _number(name, quantity, _text(root, quantity, name))
    if not 1 <= divisor <= 1e9:
        raise GeomoeError(f"{name} has {quantity} {divisor:g}; expected a number such as 10000")
    nodata = _nodata(root, name)
    offsets = _offsets(root, "RADIO_ADD_OFFSET" if level == "L1C" else "BOA_ADD_OFFSET", name)
    parts = [
        ProductBand(
            name=band,
            file=Path(file),
            pixel=pixel,
            aliases=(band.replace("B0", "B"), _BANDS[band][1]),
            scale=1 / divisor,
            offset=offsets.get(band, 0.0) / divisor,
            nodata=nodata,
        )
        for band, pixel, file in _images(root, product, level)
    ]
    if not parts:
        raise GeomoeError(f"{name} names no image of a band; expected a product as it is downloaded")
    if len({(part.name, part.pixel) for part in parts}) < len(parts):
        raise GeomoeError(f"{name} names several images of one band; expected a product of one tile")
    parts.sort(key=lambda part: (part.pixel, _ORDER.index(part.name)))
    added = {part.name: offsets.get(part.name, 0.0) for part in parts}
    note = _note(baseline, divisor, added, bool(offsets))
    return SafeProduct(tuple(parts), _acquired(root), (note,))


def _images(root: Element, product: str, level: str) -> Iterator[tuple[str, float, str]]:
    """Band, side of a pixel and file of every image of reflectance."""
    for element in elements(root, "IMAGE_FILE"):
        file = plain_name(product, element.text or "")
        file = file.removesuffix(".jp2")
        match = _IMAGE.search(PurePosixPath(file).name)
        if match is None or match[1] not in _BANDS or (match[2] is None) != (level == "L1C"):
            continue  # true colour, classes, water vapour ...
        yield match[1], float(match[2] or _BANDS[match[1]][0]), f"{file}.jp2"


def _offsets(root: Element, tag: str, name: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for element in elements(root, tag):
        number = element.get("band_id", "")
        if not (number.isascii() and number.isdigit() and len(number) < 3 and int(number) < len(_BANDS)):
            raise GeomoeError(
                f"{name} has an offset of band_id {number[:20]!r}; expected 0 to {len(_BANDS) - 1}"
            )
        found[list(_BANDS)[int(number)]] = _number(name, tag, element.text or "")
    return found


def _nodata(root: Element, name: str) -> float:
    """The value of pixels without data, which is 0 unless something else is said."""
    for values in elements(root, "Special_Values"):
        texts = {str(e.tag).rpartition("}")[2]: (e.text or "").strip() for e in values}
        if texts.get("SPECIAL_VALUE_TEXT") == "NODATA":
            return _number(name, "SPECIAL_VALUE_INDEX", texts.get("SPECIAL_VALUE_INDEX", ""))
    return 0.0


def _note(baseline: str, divisor: float, offsets: Mapping[str, float], some: bool) -> str:
    by = f"by processing baseline {baseline}"
    values = set(offsets.values())
    if len(values) > 1:
        each = ", ".join(f"{band} {value:+g}" for band, value in offsets.items())
        return f"reflectance is (DN + offset) / {divisor:g}, {by}; offsets: {each}"
    offset = values.pop()
    if offset:
        return f"reflectance is (DN {'-' if offset < 0 else '+'} {abs(offset):g}) / {divisor:g}, {by}"
    if baseline >= "04.00" and not some:
        return (
            f"reflectance is taken to be DN / {divisor:g}: processing baseline {baseline} has offsets, and "
            "none are listed, as where they were applied before"
        )
    return f"reflectance is DN / {divisor:g}, {by}"


def _acquired(root: Element) -> str | None:
    for tag in ("PRODUCT_START_TIME", "DATATAKE_SENSING_START"):
        for element in elements(root, tag):
            if (time := in_utc((element.text or "").strip())) is not None:
                return time
    return None


def _text(root: Element, tag: str, name: str) -> str:
    element = next(elements(root, tag), None)
    if element is None or not (element.text or "").strip():
        raise GeomoeError(f"{name} has no {tag}; expected the metadata of a product since December 2016")
    return str(element.text).strip()


def _number(name: str, tag: str, text: str) -> float:
    number = finite(text)
    if number is None:
        raise GeomoeError(f"{name} has {tag} {text[:20]!r}; expected a number")
    return number


def _checked(product: str, files: ProductFiles, parts: Sequence[ProductBand]) -> list[ProductBand]:
    """The parts with the checksums of the manifest; raises GeomoeError where a file has another size."""
    root = read_xml(f"{_MANIFEST} of {product}", files.content(_MANIFEST))
    listed: dict[str, Element] = {}
    for stream in elements(root, "byteStream"):
        for place in children(stream, "fileLocation"):
            listed[place.get("href", "").removeprefix("./")] = stream
    found = []
    for part in parts:
        entry = listed.get(str(part.file))
        if entry is not None:
            size, has = entry.get("size", ""), files.size(str(part.file))
            if size.strip().isdecimal() and size.strip() != str(has):
                raise GeomoeError(
                    f"{part.file.name} of {product} has {has} bytes, its manifest says {size[:20]}; "
                    "download it again"
                )
            part = replace(part, checksum=_checksum(entry))
        found.append(part)
    return found


def _checksum(stream: Element) -> Checksum | None:
    for element in children(stream, "checksum"):
        algorithm = _CHECKSUMS.get(element.get("checksumName", "").upper())
        if algorithm is not None and (element.text or "").strip():
            return Checksum(algorithm, str(element.text).strip())
    return None
