"""Writing a cloud-optimised GeoTIFF that is either whole and checked, or not there."""

from __future__ import annotations

import math
import os
import zlib
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.env import gdal_env, gdal_errors
from geomoe.raster.metadata import CogMetadata
from geomoe.raster.target import Target

__all__ = ["BLOCK", "CogWriter", "estimated_bytes"]

BLOCK = 512
_SCRATCH_BLOCK = 256
_REMEDY = "free some space on that disk or write to another one; nothing was left at the target"

_Box = tuple[int, int, int, int]  # column, row, width, height


def estimated_bytes(meta: CogMetadata) -> tuple[int, int]:
    """Bytes of the scratch file, exact but for its header, and of the COG at most.

    The COG holds a third more pixels (overviews), and of noise DEFLATE takes off nothing.
    """
    # The scratch file is made of whole blocks.
    pixels = math.prod(-(-side // _SCRATCH_BLOCK) * _SCRATCH_BLOCK for side in (meta.width, meta.height))
    scratch = pixels * meta.count * np.dtype(meta.dtype).itemsize + (pixels // 8 if meta.mask else 0)
    return scratch + 2**16, scratch * 27 // 20 + 2**18


class CogWriter:
    """Takes windows in any order, then makes a COG of them.

    The windows go to an uncompressed scratch file beside the target; `finish` copies it to a COG under a
    temporary name and reads back every window to compare it with what was given to `write`. `commit` then
    puts it in place. Leaving the ``with`` block removes all temporary files.

    GDAL reports a full disk late or, with threads, not at all; hence no threads, and the check of the
    written file against checksums taken from memory.

    Example:
        >>> with CogWriter(target, meta) as writer:      # doctest: +SKIP
        ...     writer.write(window, data, valid)
        ...     writer.finish()
        ...     commit([target])
    """

    def __init__(self, target: Target, meta: CogMetadata) -> None:
        self.target = target
        self.meta = meta
        self._stack = ExitStack()
        self._sums: dict[_Box, tuple[int, int]] = {}
        self._saw_nan = False
        self._scratch: DatasetWriter | None = None

    def __enter__(self) -> Self:
        self._stack.enter_context(gdal_env())
        self._stack.callback(self.target.clean)
        try:
            with self._errors():
                self._scratch = self._create()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Closing flushes, and may fail again on a full disk; the first error is the one to tell.
            self._close(silent=True)
        finally:
            self._stack.close()

    def write(self, window: Window, data: NDArray[np.generic], valid: NDArray[np.bool_]) -> None:
        """Write one window; windows must not overlap.

        Args:
            window: of the output, whole pixels.
            data: ``[C, h, w]`` of the output's type.
            valid: ``[h, w]``, valid in at least one band; written where the output has a mask.

        Raises:
            GeomoeError: if the disk does not take it.
        """
        if self._scratch is None:
            raise RuntimeError("write() outside of the with block, or after finish()")
        with self._errors():
            self._scratch.write(data, window=window)
            mask = np.where(valid, np.uint8(255), np.uint8(0))
            if self.meta.mask:
                self._scratch.write_mask(mask, window=window)
        box = (int(window.col_off), int(window.row_off), int(window.width), int(window.height))
        self._sums[box] = (_checksum(data), _checksum(mask))
        if self.meta.nan_nodata and not self._saw_nan:
            self._saw_nan = bool(np.isnan(data).any())

    def finish(self) -> None:
        """Make the COG under its temporary name, read it back whole, and flush it to the disk.

        Raises:
            GeomoeError: if it cannot be written or does not read back as it was written.
        """
        written = sum(width * height for _, _, width, height in self._sums)
        if written != self.meta.width * self.meta.height:
            raise RuntimeError(f"{written} pixels written of {self.meta.width * self.meta.height}")
        with self._errors():
            if self._saw_nan and self._scratch is not None:
                self._scratch.nodata = float("nan")
            self._close(silent=False)
            rasterio.shutil.copy(self.target.scratch, self.target.part, driver="COG", **self._options())
            self.target.scratch.unlink()
            self._check()
            handle = os.open(self.target.part, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _create(self) -> DatasetWriter:
        meta = self.meta
        scratch = rasterio.open(
            self.target.scratch, "w", driver="GTiff", width=meta.width, height=meta.height, count=meta.count,
            dtype=meta.dtype, nodata=meta.nodata, tiled=True, blockxsize=_SCRATCH_BLOCK,
            blockysize=_SCRATCH_BLOCK, interleave="band", bigtiff="IF_SAFER",
            # Else four uint8 bands are taken for red, green, blue and alpha.
            photometric="MINISBLACK", alpha="NO",
        )  # fmt: skip
        try:
            self._describe(scratch)
        except BaseException:
            scratch.close()
            raise
        return scratch

    def _describe(self, scratch: DatasetWriter) -> None:
        meta = self.meta
        # AREA_OR_POINT first: it decides how the transform is stored.
        scratch.update_tags(**dict(sorted(meta.tags.items())))
        for domain, tags in sorted(meta.namespaces.items()):
            if self._own_domains():
                scratch.update_tags(ns=domain, **dict(sorted(tags.items())))
            else:
                # With a full stop: GDAL would take a colon for the end of the key.
                scratch.update_tags(**{f"{domain}.{key}": value for key, value in sorted(tags.items())})
        if meta.gcps:
            scratch.gcps = (self._gcps_to_set(), meta.gcps_crs)
        else:
            if meta.crs is not None:
                scratch.crs = meta.crs
            if meta.transform is not None:
                scratch.transform = meta.transform
        if meta.rpcs is not None:
            scratch.rpcs = meta.rpcs
        scratch.colorinterp = meta.colorinterp
        scratch.scales, scratch.offsets = meta.scales, meta.offsets
        for band in range(1, meta.count + 1):
            if meta.descriptions[band - 1]:
                scratch.set_band_description(band, meta.descriptions[band - 1])
            if meta.units[band - 1]:
                scratch.set_band_unit(band, meta.units[band - 1])
            if meta.band_tags[band - 1]:
                scratch.update_tags(band, **dict(sorted(meta.band_tags[band - 1].items())))

    def _gcps_to_set(self) -> list[GroundControlPoint]:
        # GDAL writes and reads the points of a raster whose pixels are points with half a pixel added
        # each time; what it is given must be a whole one less.
        less = 1 if self.meta.tags.get("AREA_OR_POINT") == "Point" else 0
        return [
            GroundControlPoint(p.row - less, p.col - less, p.x, p.y, p.z, p.id, p.info)
            for p in self.meta.gcps
        ]

    def _options(self) -> dict[str, Any]:
        return {
            "BLOCKSIZE": str(BLOCK),
            "COMPRESS": "DEFLATE",
            "PREDICTOR": "FLOATING_POINT" if self.meta.dtype == "float32" else "STANDARD",
            "BIGTIFF": "IF_SAFER",
            "OVERVIEW_RESAMPLING": self.meta.overviews.upper(),
            **({"COPY_SRC_MDD": "YES"} if self._own_domains() else {}),
        }

    def _own_domains(self) -> bool:
        # GDAL 3.10 copies other domains only on request, and then forgets the tags of bands.
        return bool(self.meta.namespaces) and not any(self.meta.band_tags)

    def _check(self) -> None:
        meta, name = self.meta, self.target.path.name
        with rasterio.open(self.target.part, driver="GTiff", sharing=False) as cog:
            shape = (cog.width, cog.height, cog.count, cog.dtypes[0])
            if shape != (meta.width, meta.height, meta.count, meta.dtype):
                raise GeomoeError(f"{name} was written as {shape}, which is not what was asked; {_REMEDY}")
            if cog.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") != "COG":
                raise GeomoeError(f"{name} was not written as a COG; check the GDAL that rasterio uses")
            if max(meta.width, meta.height) > BLOCK and not cog.overviews(1):
                raise GeomoeError(f"{name} was written without overviews; check the GDAL that rasterio uses")
            if wrong := self._misplaced(cog):
                raise GeomoeError(f"the {wrong} of {name} does not read back as it was written; check GDAL")
            for (x, y, width, height), (data_sum, mask_sum) in sorted(self._sums.items()):
                window = Window(x, y, width, height)
                same = _checksum(cog.read(window=window)) == data_sum
                if same and meta.mask:
                    same = _checksum(cog.read_masks(1, window=window)) == mask_sum
                if not same:
                    raise GeomoeError(f"{name} does not read back as it was written; {_REMEDY}")

    def _misplaced(self, cog: DatasetReader) -> str | None:
        """What of the georeference or nodata is not as it was to be; ``None`` if nothing."""
        meta = self.meta
        gcps = [(p.row, p.col, p.x, p.y) for p in cog.gcps[0]]
        nodata = float("nan") if self._saw_nan else meta.nodata
        if meta.transform is not None and not meta.gcps and meta.transform.determinant:
            back = ~meta.transform * cog.transform
            corners = [(x, y) for x in (0, meta.width) for y in (0, meta.height)]
            # A thousandth of a pixel: where pixels are points, corners are stored as centres.
            if not np.allclose([back * corner for corner in corners], corners, rtol=0, atol=1e-3):
                return "transform"
        wanted = [(p.row, p.col, p.x, p.y) for p in meta.gcps]
        if len(gcps) != len(wanted) or not np.allclose(gcps, wanted, rtol=1e-9, atol=1e-6):
            return "ground control"
        if meta.crs is not None and cog.crs is None and not meta.gcps:
            return "CRS"
        if nodata != cog.nodata and not (nodata is not None and np.isnan([nodata, cog.nodata or 0]).all()):
            return "nodata value"
        return None

    def _close(self, *, silent: bool) -> None:
        scratch, self._scratch = self._scratch, None
        if scratch is None:
            return
        try:
            scratch.close()
        except Exception:
            if not silent:
                raise

    def _errors(self) -> Any:
        return gdal_errors(f"cannot write {self.target.path}", _REMEDY)


def _checksum(array: NDArray[np.generic]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)
