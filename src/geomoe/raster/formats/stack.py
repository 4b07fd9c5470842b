"""A scene whose bands come from several files on one grid."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.formats.product import Checksum, ProductBand
from geomoe.raster.read.env import gdal_errors
from geomoe.raster.read.grid import same_transform
from geomoe.raster.read.names import listed
from geomoe.raster.read.scene import Scene, open_file, representable

__all__ = ["MAX_FILES", "StackScene", "open_stack", "shared"]

MAX_FILES = 256
_CHUNK = 2**20


@dataclass(frozen=True)
class StackScene(Scene):
    """A scene of members, read from the files that hold them.

    Where some file has a mask or alpha band and no nodata value is declared, validity cannot be kept band by
    band: a pixel is invalid in all bands that are read together if it is in one of them.
    """

    _members: tuple[ProductBand, ...] = field(repr=False)
    _parts: Mapping[Path, Scene] = field(repr=False, compare=False)
    _files: tuple[Path, ...] = field(repr=False)

    @property
    def scaled_by(self) -> tuple[str, ...]:
        """See :attr:`Scene.scaled_by`."""
        whole = "the item" if self.path.suffix.lower() in (".json", ".geojson") else "the product"
        said = super().scaled_by
        own = [self._parts[member.file].scaled_by[member.band - 1] for member in self._members]
        return tuple(mine or (whole if some else "") for mine, some in zip(own, said, strict=True))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from."""
        return self._files

    @property
    def cache_bytes(self) -> int:
        """The most bytes of decoded blocks that are in memory: one cache, and blocks of every file."""
        return super().cache_bytes + sum(part._decoded for part in self._parts.values())

    @cached_property
    def aliases(self) -> tuple[tuple[str, ...], ...]:
        """Other names of each band, beside its description."""
        return tuple(member.aliases for member in self._members)

    def said(self, nodata: float | None) -> Self:
        """See :meth:`Scene.said`; what its files declare counts no more, either."""
        parts = {file: part.said(None) for file, part in self._parts.items()}
        return replace(super().said(nodata), _parts=parts)

    def digest(self) -> str:
        """SHA-256 over those of its files and what is said of their bands, in hexadecimal.

        Raises:
            GeomoeError: if a file cannot be read, or does not have its checksum.
        """
        sums = {member.file: _digest(member.file, member.checksum) for member in self._members}
        total = hashlib.sha256()
        for member in self._members:
            said = (member.band, member.name, member.scale, member.offset, member.nodata)
            total.update(f"{sums[member.file]} {said}\n".encode())
        return total.hexdigest()

    def _raw(self, window: Window, bands: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        wanted = [self._members[band - 1] for band in bands]
        shape = (len(wanted), window.height, window.width)
        data, valid = np.empty(shape, dtype=self.dtype), np.empty(shape, dtype=np.bool_)
        for file in dict.fromkeys(member.file for member in wanted):
            rows = [i for i, member in enumerate(wanted) if member.file == file]
            part = self._parts[file]
            data[rows], valid[rows] = part._raw(window, [wanted[i].band for i in rows])
            for i in rows:
                if (nodata := _added_nodata(wanted[i], part)) is not None:
                    valid[i] &= data[i] != data.dtype.type(nodata)
        if self.validity == "mask":
            valid &= valid.all(axis=0)
        return data, valid


@contextmanager
def open_stack(
    path: Path,
    members: Sequence[ProductBand],
    *,
    files: Sequence[Path] = (),
    acquired: str | None = None,
    sensor: str | None = None,
    gsd: float | None = None,
    notes: Sequence[str] = (),
) -> Iterator[StackScene]:
    """Open members as one scene, whose bands have their order.

    Args:
        path: of the product that they are of.
        members: at least one.
        files: that the scene is of; those of the members if none are given.
        acquired: when it was taken; else what all files agree on.
        sensor: what took it; else what all files agree on.
        gsd: ground sampling distance in metres, if the product says so.
        notes: what was decided about the product.

    Raises:
        GeomoeError: if a file cannot be opened, or two do not have the same grid and type.
    """
    places = list(dict.fromkeys(member.file for member in members))
    if len(places) > MAX_FILES:
        raise GeomoeError(f"{path.name} takes {len(places)} files, more than {MAX_FILES}; choose some bands")
    with ExitStack() as opened:
        parts = {file: opened.enter_context(open_file(file)) for file in places}
        _check_alike(parts)
        said: dict[str, Any] = {"path": path, "notes": (*notes, *_contradicted(members, parts))}
        known = {"acquired": acquired, "sensor": sensor, "said_gsd": gsd}
        said |= {name: value for name, value in known.items() if value is not None}
        yield StackScene(
            **_described(members, parts) | said,
            _members=tuple(members),
            _parts=parts,
            _files=tuple(files) or tuple(places),
        )


def _described(members: Sequence[ProductBand], parts: Mapping[Path, Scene]) -> dict[str, Any]:
    """Fields of the scene: those of the first file, but where bands or files differ."""
    of = [parts[member.file] for member in members]
    first, place = of[0], [member.band - 1 for member in members]
    described = {f.name: getattr(first, f.name) for f in fields(Scene)}
    declared = [part.nodata if part.nodata is not None else _added_nodata(member, part)
                for member, part in zip(members, of, strict=True)]  # fmt: skip
    nodata = next((value for value in declared if value is not None), None)
    if nodata is not None:
        validity = "nodata"
    elif any(part.validity in ("mask", "alpha") for part in of):
        validity = "mask"
    else:
        validity = first.validity
    own = [(part.scales[i], part.offsets[i]) for part, i in zip(of, place, strict=True)]
    said = [(member.scale, member.offset) for member in members]
    chosen = [mine if mine != (1, 0) else other for mine, other in zip(own, said, strict=True)]
    times, sensors = {part.acquired for part in of}, {part.sensor for part in of}
    return described | {
        "count": len(members),
        "nodata": nodata,
        "validity": validity,
        "descriptions": tuple(member.name for member in members),
        "units": tuple(part.units[i] for part, i in zip(of, place, strict=True)),
        "scales": tuple(scale for scale, _ in chosen),
        "offsets": tuple(offset for _, offset in chosen),
        "colorinterp": (ColorInterp.gray, *(ColorInterp.undefined,) * (len(members) - 1)),
        "tags": shared([part.tags for part in of]),
        "band_tags": tuple(part.band_tags[i] for part, i in zip(of, place, strict=True)),
        "namespaces": shared([part.namespaces for part in of]),
        "categories": tuple(
            i
            for i, (member, part) in enumerate(zip(members, of, strict=True), 1)
            if member.classes or member.band in part.class_bands
        ),
        "neighbours": tuple(dict.fromkeys(name for part in parts.values() for name in part.neighbours)),
        "acquired": times.pop() if len(times) == 1 else None,
        "sensor": sensors.pop() if len(sensors) == 1 else None,
    }


def _contradicted(members: Sequence[ProductBand], parts: Mapping[Path, Scene]) -> list[str]:
    """A sentence on bands whose file and product say different scales or offsets."""
    both = [
        (m.name, (parts[m.file].scales[m.band - 1], parts[m.file].offsets[m.band - 1]), (m.scale, m.offset))
        for m in members
    ]
    differ = [
        f"{name} * {own[0]:g} {own[1]:+g} (not * {said[0]:g} {said[1]:+g})"
        for name, own, said in both
        if (1, 0) not in (own, said) and own != said
    ]
    if not differ:
        return []
    return [f"scale and offset are those of the files, though something else is listed: {listed(differ)}"]


def _added_nodata(member: ProductBand, part: Scene) -> float | None:
    """The nodata value that metadata declare and the file does not."""
    if part.nodata is not None or part.nodata_by == "user":
        return None
    if member.nodata is None or not representable(member.nodata, part.dtype):
        return None
    return member.nodata


def shared(given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all say alike."""
    return {key: value for key, value in given[0].items() if all(g.get(key) == value for g in given[1:])}


def _check_alike(parts: Mapping[Path, Scene]) -> None:
    first, *others = parts.values()
    for other in others:
        for what, mine, its in zip(_GRID, _grid(first), _grid(other), strict=True):
            lies_on = what == "transform" and same_transform(
                first.transform, other.transform, first.width, first.height
            )
            if mine != its and not lies_on:
                raise GeomoeError(
                    f"{first.path.name} and {other.path.name} differ in {what}: {_said(mine)} and "
                    f"{_said(its)}; expected bands of one grid and type, choose others"
                )


_GRID = ("size", "transform", "CRS", "data type", "ground control points", "RPCs")


def _grid(scene: Scene) -> tuple[Any, ...]:
    return (
        (scene.width, scene.height),
        None if scene.transform is None else tuple(scene.transform)[:6],
        scene.crs,
        scene.dtype,
        [(p.row, p.col, p.x, p.y, p.z) for p in scene.gcps],
        None if scene.rpcs is None else scene.rpcs.to_dict(),
    )


def _said(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _digest(file: Path, checksum: Checksum | None) -> str:
    """SHA-256 of a file, whose own checksum is compared in the same pass."""
    sha = hashlib.sha256()
    own = None if checksum is None else hashlib.new(checksum.algorithm, usedforsecurity=False)
    with gdal_errors(f"cannot read {file}", "check the disk"), file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            sha.update(chunk)
            if own is not None:
                own.update(chunk)
    if checksum is not None and own is not None and own.hexdigest() != checksum.value.lower():
        raise GeomoeError(
            f"{os.fspath(file.name)} does not have the checksum that its product lists; download it again"
        )
    return sha.hexdigest()
