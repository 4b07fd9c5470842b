"""Pixels of a file to be, collected in any order in a file whose layout never changes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from geomoe.raster.write.metadata import CogMetadata

__all__ = ["SCRATCH_BLOCK", "LayoutError", "Scratch", "Sums", "sums_of"]

SCRATCH_BLOCK = 256


class LayoutError(ValueError):
    """A file whose blocks are not where `Scratch.create` puts them."""


class Sums(NamedTuple):
    """CRC-32 of the pixels of one window, and of its mask; 0 where the file has none."""

    data: int
    mask: int


def sums_of(data: NDArray[np.generic], mask: NDArray[np.uint8] | None) -> Sums:
    """Of pixels ``[C, h, w]``, and of a mask ``[h, w]`` that is 255 where they are valid."""
    return Sums(_checksum(data), 0 if mask is None else _checksum(mask))


def _checksum(array: NDArray[np.generic]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


class Scratch:
    """An uncompressed GeoTIFF, laid out once and then filled by plain writes.

    The header with all metadata is complete, and every block has its place, before the first pixel is known.
    A process that is killed therefore leaves a file that another can continue, several may fill it at once,
    and a full disk is an error of the write that it befalls. What was not written takes no space. A mask is
    a second such file, named as GDAL looks for it.

    Args:
        folder: for the files, and for nothing that others may have put there.
        meta: of the file to be.
    """

    def __init__(self, folder: Path, meta: CogMetadata) -> None:
        self.meta = meta
        self.path = folder / "scratch.tif"
        self._planes = [_Plane(self.path, meta)]
        if meta.mask:
            self._planes.append(_Plane(folder / "scratch.tif.msk", _mask_of(meta)))

    @property
    def paths(self) -> list[Path]:
        """Of the files that there are, or will be."""
        return [plane.path for plane in self._planes]

    def create(self) -> None:
        """Lay out the files, over those that are there.

        Raises:
            OSError: and what GDAL raises, if the disk does not take them.
        """
        for plane in self._planes:
            plane.create()

    def open(self) -> None:
        """Open the files to write and to read windows.

        Raises:
            LayoutError: if they are not as `create` left them.
            OSError: and what GDAL raises, if they are not there or cannot be read.
        """
        for plane in self._planes:
            plane.open()

    def close(self) -> None:
        """Close the files, if they are open."""
        for plane in self._planes:
            plane.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, window: Window, data: NDArray[np.generic], valid: NDArray[np.bool_]) -> Sums:
        """Write one window of an open file.

        Args:
            window: of the output, whole pixels.
            data: ``[C, h, w]`` of the output's type.
            valid: ``[h, w]``, valid in at least one band; written where the output has a mask.

        Raises:
            OSError: if the disk does not take it.
        """
        self._planes[0].write(window, data)
        if not self.meta.mask:
            return sums_of(data, None)
        mask = np.where(valid, np.uint8(255), np.uint8(0))
        self._planes[1].write(window, mask[None])
        return sums_of(data, mask)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """What was written of a window: pixels ``[C, h, w]`` and, where there is one, the mask ``[h, w]``."""
        data, *mask = [plane.read(window) for plane in self._planes]
        return data, np.ascontiguousarray(mask[0][0]) if mask else None

    def declare(self, nodata: float | None, tags: Mapping[str, str]) -> None:
        """Give the file a nodata value and tags; not while it is open.

        Only afterwards, since GDAL lays out a file that has a nodata value by writing it everywhere.
        """
        if nodata is None and not tags:
            return
        with rasterio.open(self.path, "r+", driver="GTiff", sharing=False) as file:
            if nodata is not None:
                file.nodata = nodata
            file.update_tags(**tags)


def _mask_of(meta: CogMetadata) -> CogMetadata:
    return replace(
        meta, count=1, dtype="uint8", nodata=None, mask=False, transform=None, crs=None, gcps=(), rpcs=None,
        descriptions=(None,), units=(None,), scales=(1.0,), offsets=(0.0,), colorinterp=(ColorInterp.gray,),
        # One mask for all bands: GMF_PER_DATASET.
        tags={f"INTERNAL_MASK_FLAGS_{band}": "2" for band in range(1, meta.count + 1)},
        band_tags=({},), namespaces={},
    )  # fmt: skip


class _Plane:
    """One file: its bands one after another, each in blocks by row."""

    def __init__(self, path: Path, meta: CogMetadata) -> None:
        self.path = path
        self._meta = meta
        self._dtype = np.dtype(meta.dtype)
        self._across = -(-meta.width // SCRATCH_BLOCK)
        self._down = -(-meta.height // SCRATCH_BLOCK)
        self._block_bytes = SCRATCH_BLOCK**2 * self._dtype.itemsize
        self._start = 0
        self._file: BinaryIO | None = None

    def create(self) -> None:
        self.path.unlink(missing_ok=True)
        meta = self._meta
        file = rasterio.open(
            self.path, "w", driver="GTiff", width=meta.width, height=meta.height, count=meta.count,
            dtype=meta.dtype, tiled=True, blockxsize=SCRATCH_BLOCK, blockysize=SCRATCH_BLOCK,
            interleave="band", bigtiff="IF_SAFER",
            # Else four uint8 bands are taken for red, green, blue and alpha.
            photometric="MINISBLACK", alpha="NO",
        )  # fmt: skip
        with file:
            describe(file, meta)
        self.open()
        self.close()

    def open(self) -> None:
        with rasterio.open(self.path, driver="GTiff", sharing=False) as file:
            last = self._across * self._down - 1
            ends = [
                file.get_tag_item(f"BLOCK_OFFSET_{n % self._across}_{n // self._across}", "TIFF", bidx=band)
                for n, band in ((0, 1), (last, self._meta.count))
            ]
        count = self._across * self._down * self._meta.count
        size = self.path.stat().st_size
        # GDAL may not have said that the disk was full.
        if None in ends or int(ends[1]) + self._block_bytes > size:
            raise LayoutError(f"{size} bytes are too few for its pixels")
        if int(ends[1]) - int(ends[0]) != (count - 1) * self._block_bytes:
            raise LayoutError("its blocks do not follow one another")
        self._start = int(ends[0])
        self._file = self.path.open("r+b", buffering=0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, window: Window, data: NDArray[np.generic]) -> None:
        for band, block, rows, columns, inside in self._blocks(window):
            part = np.ascontiguousarray(data[band, rows, columns])
            if part.shape == (SCRATCH_BLOCK, SCRATCH_BLOCK):
                self._put(part.data.cast("B"), block)
                continue
            for row, line in enumerate(part):
                place = (inside[0] + row) * SCRATCH_BLOCK + inside[1]
                self._put(line.data.cast("B"), block + place * self._dtype.itemsize)

    def _put(self, data: memoryview, place: int) -> None:
        assert self._file is not None
        self._file.seek(place)
        while data:  # a disk that fills up takes a part and refuses the next
            data = data[self._file.write(data) :]

    def read(self, window: Window) -> NDArray[Any]:
        data = np.empty((self._meta.count, int(window.height), int(window.width)), dtype=self._dtype)
        for band, place, rows, columns, inside in self._blocks(window):
            assert self._file is not None
            self._file.seek(place)
            raw = self._file.read(self._block_bytes)
            block = np.frombuffer(raw, dtype=self._dtype).reshape(SCRATCH_BLOCK, SCRATCH_BLOCK)
            high, wide = data[band, rows, columns].shape
            data[band, rows, columns] = block[inside[0] : inside[0] + high, inside[1] : inside[1] + wide]
        return data

    def _blocks(self, window: Window) -> Iterator[tuple[int, int, slice, slice, tuple[int, int]]]:
        """Every block that a window touches: band, place in the file, part of the window, corner inside."""
        left, top = int(window.col_off), int(window.row_off)
        for band in range(self._meta.count):
            for r in range(top // SCRATCH_BLOCK, -(-(top + int(window.height)) // SCRATCH_BLOCK)):
                for c in range(left // SCRATCH_BLOCK, -(-(left + int(window.width)) // SCRATCH_BLOCK)):
                    number = (band * self._down + r) * self._across + c
                    y, x = r * SCRATCH_BLOCK - top, c * SCRATCH_BLOCK - left
                    rows = slice(max(0, y), min(int(window.height), y + SCRATCH_BLOCK))
                    columns = slice(max(0, x), min(int(window.width), x + SCRATCH_BLOCK))
                    yield (
                        band,
                        self._start + number * self._block_bytes,
                        rows,
                        columns,
                        (rows.start - y, columns.start - x),
                    )


def describe(file: DatasetWriter, meta: CogMetadata) -> None:
    """Write all metadata but nodata into a new file."""
    # AREA_OR_POINT first: it decides how the transform is stored.
    file.update_tags(**dict(sorted(meta.tags.items())))
    for domain, tags in sorted(meta.namespaces.items()):
        if meta.own_domains:
            file.update_tags(ns=domain, **dict(sorted(tags.items())))
        else:
            # With a full stop: GDAL would take a colon for the end of the key.
            file.update_tags(**{f"{domain}.{key}": value for key, value in sorted(tags.items())})
    if meta.gcps:
        file.gcps = (_gcps_to_set(meta), meta.gcps_crs or CRS())  # rasterio takes no None
    else:
        if meta.crs is not None:
            file.crs = meta.crs
        if meta.transform is not None:
            file.transform = meta.transform
    if meta.rpcs is not None:
        file.rpcs = meta.rpcs
    file.colorinterp = meta.colorinterp
    if meta.classes:
        file.write_colormap(1, {0: (0, 0, 0, 0), **{each.value: each.rgb for each in meta.classes}})
    file.scales, file.offsets = meta.scales, meta.offsets
    for band in range(1, meta.count + 1):
        if meta.descriptions[band - 1]:
            file.set_band_description(band, meta.descriptions[band - 1])
        if meta.units[band - 1]:
            file.set_band_unit(band, meta.units[band - 1])
        if meta.band_tags[band - 1]:
            file.update_tags(band, **dict(sorted(meta.band_tags[band - 1].items())))


def _gcps_to_set(meta: CogMetadata) -> list[GroundControlPoint]:
    # GDAL writes and reads the points of a raster whose pixels are points with half a pixel added
    # each time; what it is given must be a whole one less.
    less = 1 if meta.tags.get("AREA_OR_POINT") == "Point" else 0
    return [GroundControlPoint(p.row - less, p.col - less, p.x, p.y, p.z, p.id, p.info) for p in meta.gcps]
