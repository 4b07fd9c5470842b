"""A georeferenced scene, opened with one driver only and read in windows."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.rpc import RPC
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.read.checks import (
    MAX_BANDS,
    check_blocks,
    check_directories,
    check_neighbours,
    local_raster,
)
from geomoe.raster.read.classes import categories, names_classes
from geomoe.raster.read.dates import in_utc
from geomoe.raster.read.env import BLOCK_CACHE_BYTES, JPEG2000_CACHE_BYTES, gdal_env, gdal_errors
from geomoe.raster.read.jpeg2000 import check_boxes
from geomoe.raster.read.names import known_as
from geomoe.raster.read.sensor import sensor_of_file, sensor_of_tags

__all__ = ["DTYPES", "NodataBy", "Scene", "Validity", "open_file", "representable"]

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")

Validity = Literal["all", "nodata", "mask", "alpha", "nan"]
"""What tells valid pixels from others. ``nan``: a float scene that declares nothing, whose NaN and infinite
values are not measurements. Non-finite values are invalid in every float scene."""

NodataBy = Literal["scene", "user", "area"]
"""Who says what the nodata value is, or that there is none: the scene or its product; its user; a large area
of one value in all bands (`read.fill`), where a pixel is not valid that has it in all of them."""

_REASONS = {
    "complex64": "take its amplitude first",
    "complex128": "take its amplitude first",
}


# By their names: GDAL knew fewer of them once.
_COLOURS = {"coastal", "blue", "green", "red", "rededge", "nir", "swir", "pan"}


@dataclass(frozen=True)
class Scene:
    """What is known of an open scene. Bands are counted from 1; per-band tuples cover all ``count`` bands.

    Attributes:
        transform: pixel corner to ground; ``None`` where the file has none (GCPs or RPCs may place it).
        nodata: value of invalid pixels, ``None`` where there is none that its type can hold.
        nodata_by: who says so. Of ``area``, bands are to be read together that were looked at together.
        tags: tags of the data set, default domain, ``AREA_OR_POINT`` among them.
        namespaces: tags in other domains, by domain.
        categories: bands of whose values something says that they are classes.
        neighbours: names of files beside it that other tools read and geomoe does not.
        acquired: when it was taken, in UTC as RFC 3339 writes it; of two dates both, the earlier first, a
            slash between them; ``None`` where nothing says so.
        sensor: what took it; see :mod:`geomoe.raster.read.sensor`. ``None`` where nothing says so.
        said_gsd: ground sampling distance in metres, as its item says it; the grid counts for more.
        notes: what was decided about it that its user should know, a sentence each.
    """

    path: Path
    width: int
    height: int
    count: int
    dtype: str
    transform: Affine | None
    crs: CRS | None
    gcps: tuple[GroundControlPoint, ...]
    gcps_crs: CRS | None
    rpcs: RPC | None
    nodata: float | None
    nodata_by: NodataBy
    validity: Validity
    descriptions: tuple[str | None, ...]
    units: tuple[str | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    colorinterp: tuple[ColorInterp, ...]
    tags: Mapping[str, str]
    band_tags: tuple[Mapping[str, str], ...]
    namespaces: Mapping[str, Mapping[str, str]]
    block: tuple[int, int]
    categories: tuple[int, ...]
    neighbours: tuple[str, ...]
    acquired: str | None
    sensor: str | None
    said_gsd: float | None
    notes: tuple[str, ...]
    _source: DatasetReader = field(repr=False, compare=False)
    _decoded: int = field(repr=False, compare=False)

    @property
    def scaled_by(self) -> tuple[str, ...]:
        """Who says scale and offset of each band, in words; empty where there is none."""
        return tuple(
            "the file" if both != (1, 0) else "" for both in zip(self.scales, self.offsets, strict=True)
        )

    @property
    def parts(self) -> tuple[Scene, ...]:
        """Scenes that are one here: of two dates both, else itself."""
        return (self,)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from."""
        return (self.path,)

    @property
    def cache_bytes(self) -> int:
        """The most bytes of decoded blocks that are in memory: in GDAL's cache, and on their way to it."""
        if self._source.driver == "GTiff":
            return BLOCK_CACHE_BYTES + 2 * self._decoded
        rows, columns = self.block
        pixels = (self.height + rows) * (self.width + columns) * self.count
        return min(JPEG2000_CACHE_BYTES, BLOCK_CACHE_BYTES + pixels * np.dtype(self.dtype).itemsize)

    @cached_property
    def aliases(self) -> tuple[tuple[str, ...], ...]:
        """Other names of each band: those that its name is known by, or the colour that the file says it is.

        A description counts for more, as writers of three bytes a pixel say red, green, blue of anything.
        """
        named = [(name or "").strip() for name in self.descriptions]
        said = [
            (name,) if name else (colour.name,) if colour.name in _COLOURS else ()
            for name, colour in zip(named, self.colorinterp, strict=True)
        ]
        known = known_as(said, self.path.name)
        return tuple(names[1:] if name else names for name, names in zip(named, known, strict=True))

    @cached_property
    def data_bands(self) -> tuple[int, ...]:
        """Bands that hold measurements; an alpha band is a mask, and classes are numbers by chance."""
        return tuple(
            band
            for band, colour in enumerate(self.colorinterp, 1)
            if colour is not ColorInterp.alpha and band not in self.class_bands
        )

    @cached_property
    def class_bands(self) -> tuple[int, ...]:
        """Bands of classes or flags, by their palette, what is said of their values, or their names."""
        if not np.issubdtype(self.dtype, np.integer):
            return ()
        named = {band for band, name in enumerate(self.descriptions, 1) if name and names_classes(name)}
        named |= {band for band, kind in enumerate(self.colorinterp, 1) if kind is ColorInterp.palette}
        if self.count == 1 and not self.descriptions[0] and names_classes(self.path.stem, file=True):
            named.add(1)
        return tuple(band for band in range(1, self.count + 1) if band in named.union(self.categories))

    @property
    def alpha(self) -> int | None:
        """The band, from 1, that is 0 where pixels are not valid."""
        return next((b for b, c in enumerate(self.colorinterp, 1) if c is ColorInterp.alpha), None)

    def said(self, nodata: float | None) -> Self:
        """The scene with the nodata value that its user says, or none; masks and alpha count as before.

        Raises:
            GeomoeError: if its pixels cannot have that value.
        """
        if nodata is not None and not representable(nodata, self.dtype):
            raise GeomoeError(
                f"{self.path.name} is {self.dtype}, whose pixels are never {nodata:g}; correct --nodata"
            )
        validity: Validity = "all" if np.issubdtype(self.dtype, np.integer) else "nan"
        if self.validity == "mask" or (self.validity == "alpha" and nodata is None):
            validity = self.validity
        elif nodata is not None:
            validity = "nodata"
        elif self.alpha is not None:
            validity = "alpha"
        return replace(self, nodata=nodata, nodata_by="user", validity=validity)

    def digest(self) -> str:
        """SHA-256 of what it is read from, in hexadecimal."""
        with gdal_errors(f"cannot read {self.path}", "check the disk"), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read(self, window: Window, bands: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Pixels and their validity.

        Args:
            window: inside the scene, whole pixels.
            bands: 1-based, in the order wanted.

        Returns:
            ``[C, h, w]`` float32 in source units, and ``[C, h, w]`` bool. The values of invalid pixels
            mean nothing. Band by band: a pixel is invalid to the data set when it is in every band.

        Raises:
            GeomoeError: if a block cannot be read, as in a damaged file, or a value is beyond float32.
        """
        raw, valid = self._raw(window, bands)
        if self.nodata is not None and self.nodata_by != "scene":
            same = raw == raw.dtype.type(self.nodata)
            valid &= ~(same.all(axis=0) if self.nodata_by == "area" else same)
        with np.errstate(over="ignore", invalid="ignore"):
            data = raw.astype(np.float32, copy=False)
        if np.issubdtype(raw.dtype, np.floating):
            beyond = valid & np.isfinite(raw) & ~np.isfinite(data)
            if beyond.any():
                value = float(raw[beyond][0])
                raise GeomoeError(
                    f"{self.path.name} holds {value!r}, beyond the range of float32, of which models are; "
                    "rescale it, or give that value as --nodata"
                )
            valid &= np.isfinite(data)
        return data, valid

    def value(self, column: int, row: int, band: int) -> float:
        """What one pixel of a band (1-based) holds."""
        return float(self._raw(Window(column, row, 1, 1), [band])[0].item())

    def _raw(self, window: Window, bands: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels in the scene's type, and which are valid by what it declares."""
        where = f"cannot read columns {window.col_off}+{window.width}, rows {window.row_off}+{window.height}"
        with gdal_errors(f"{where} of {self.path.name}", "the file is damaged, copy or download it again"):
            data = self._source.read(list(bands), window=window)
            if self.validity == "mask" or (self.validity == "nodata" and self.nodata_by == "scene"):
                valid = self._source.read_masks(list(bands), window=window) > 0
            else:
                valid = np.ones(data.shape, dtype=np.bool_)
            if self.alpha is not None:
                # Read as a band: GDAL takes it for a mask only in scenes of two or of four bands.
                valid &= self._source.read(self.alpha, window=window) > 0  # [h, w]
        return data, valid


@contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[Scene]:
    """Open one local GeoTIFF or JPEG 2000 for reading, with the driver of its name and no other.

    A file named ``.tif`` may be a VRT that names any other file or address; forcing the driver refuses it.

    Raises:
        GeomoeError: if it is missing, neither of them, truncated, or of a type that is not supported.
    """
    local, driver = local_raster(path)
    kind = "GeoTIFF" if driver == "GTiff" else "JPEG 2000"
    decoded = 0
    if driver == "GTiff":
        with gdal_errors(f"{local} cannot be read", "check the file"), local.open("rb") as file:
            decoded = check_directories(local.name, file)
        cache = BLOCK_CACHE_BYTES + decoded  # a little more than the blocks, or each would push out the next
    else:
        check_boxes(local)
        cache = JPEG2000_CACHE_BYTES
    with gdal_env(cache):
        with gdal_errors(f"{local.name} cannot be opened as a {kind}", f"expected a {kind}, check the file"):
            # "sharing" would hand the same GDAL handle to a scene that is opened twice.
            source = rasterio.open(local, driver=driver, sharing=False)
        with source:
            with gdal_errors(f"{local.name} has unreadable metadata", "rewrite it with gdal_translate"):
                scene = _describe(local, source, decoded)
            yield scene


def _describe(path: Path, source: DatasetReader, decoded: int) -> Scene:
    _check_kind(path, source)
    check_blocks(path, source)
    dtype = source.dtypes[0]
    gcps, gcps_crs = source.gcps
    nodata = source.nodata
    if nodata is not None and not representable(nodata, dtype):
        nodata = None
    transform = source.transform
    if transform.is_identity and (source.crs is None or gcps):
        transform = None
    _check_places(path, source, transform)
    placed = transform is not None or bool(gcps) or source.rpcs is not None
    named = [n for n in source.tag_namespaces() if n not in _GDAL_DOMAINS and ":" not in n]
    tags, namespaces = source.tags(), {name: source.tags(ns=name) for name in named}
    return Scene(
        path=path,
        width=source.width,
        height=source.height,
        count=source.count,
        dtype=dtype,
        transform=transform,
        crs=source.crs,
        gcps=tuple(gcps),
        gcps_crs=gcps_crs,
        rpcs=source.rpcs,
        nodata=nodata,
        nodata_by="scene",
        validity=_validity(source, nodata),
        descriptions=source.descriptions,
        units=source.units,
        scales=source.scales,
        offsets=source.offsets,
        colorinterp=source.colorinterp,
        tags=tags,
        band_tags=tuple(source.tags(band) for band in source.indexes),
        namespaces=namespaces,
        block=source.block_shapes[0],
        categories=tuple(categories(path, tags, [source.tags(band) for band in source.indexes])),
        neighbours=check_neighbours(path, placed=placed),
        acquired=_acquired(source),
        sensor=sensor_of_tags(tags, namespaces) or sensor_of_file(path.name),
        said_gsd=None,
        notes=(),
        _source=source,
        _decoded=decoded,
    )


# Written by GDAL itself, or carried over by a field of their own.
_GDAL_DOMAINS = (
    "IMAGE_STRUCTURE",
    "DERIVED_SUBDATASETS",
    "SUBDATASETS",
    "RPC",
    "COLOR_PROFILE",
    "TIFF",
    "EXIF",
)


def _check_kind(path: Path, source: DatasetReader) -> None:
    name, dtype = path.name, source.dtypes[0]
    if source.count > MAX_BANDS:
        raise GeomoeError(f"{name} has {source.count} bands, more than {MAX_BANDS}; split it first")
    structure = source.tags(1, ns="IMAGE_STRUCTURE")
    if dtype == "uint8" and "NBITS" in structure:  # which GDAL may also give a palette
        bits = structure["NBITS"]
        raise GeomoeError(
            f"{name} has {bits} bit{'' if bits == '1' else 's'} a pixel: a mask or classes, not "
            "measurements; expected 8 or more"
        )
    if dtype not in DTYPES:
        remedy = _REASONS.get(dtype, "convert it with gdal_translate -ot Float32")
        raise GeomoeError(f"{name} is {dtype}; expected one of {', '.join(DTYPES)}, {remedy}")
    if "MINISWHITE" in source.tags(ns="IMAGE_STRUCTURE"):
        raise GeomoeError(f"{name} stores 0 as white; invert it first, so that larger values are brighter")


def _check_places(path: Path, source: DatasetReader, transform: Affine | None) -> None:
    """Refuse numbers that place no pixel: a finished output could not be told from a damaged one by them."""
    corner = (0, 0) if transform is None else transform * (source.width, source.height)
    points = [value for point in source.gcps[0] for value in (point.row, point.col, point.x, point.y)]
    if not np.isfinite([*corner, *points]).all():
        raise GeomoeError(
            f"{path.name} is placed by numbers that are not finite; write right ones by gdal_edit.py "
            "-a_ullr, or none by -unsetgt"
        )
    if transform is not None and not transform.determinant:
        raise GeomoeError(
            f"{path.name} has pixels without an area by its transform {tuple(transform)[:6]}; write a right "
            "one by gdal_edit.py -a_ullr, or none by -unsetgt"
        )


def _acquired(source: DatasetReader) -> str | None:
    """By GDAL's domain for it. TIFF's own tag of a time is of the file, not of what it shows."""
    return in_utc(source.tags(ns="IMAGERY").get("ACQUISITIONDATETIME", ""))


def _validity(source: DatasetReader, nodata: float | None) -> Validity:
    flags = {flag for band in source.mask_flag_enums for flag in band}
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        return "mask"
    if MaskFlags.nodata in flags and nodata is not None:
        return "nodata"
    if ColorInterp.alpha in source.colorinterp:
        return "alpha"
    return "nan" if np.issubdtype(source.dtypes[0], np.floating) else "all"


def representable(nodata: float, dtype: str) -> bool:
    """Whether a nodata value can be one of a pixel of this type."""
    if np.issubdtype(dtype, np.floating):
        return math.isnan(nodata) or abs(nodata) <= float(np.finfo(dtype).max)
    info = np.iinfo(np.dtype(dtype))
    return math.isfinite(nodata) and float(nodata).is_integer() and info.min <= nodata <= info.max
