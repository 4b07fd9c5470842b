"""Two scenes of one place, of two dates, as one scene."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geomoe.errors import GeomoeError
from geomoe.raster.formats.open import open_scene
from geomoe.raster.formats.stack import shared
from geomoe.raster.read.grid import same_transform
from geomoe.raster.read.scene import DTYPES, Scene

__all__ = ["DATES", "DatedScene", "digest_of_dates", "open_dates"]

DATES = ("before", "after")
"""What the dates are called where a model names what it is given."""

_Bands = str | Sequence[str | int] | None


@dataclass(frozen=True)
class DatedScene(Scene):
    """The bands of the first date, then those of the second, in a type that holds both.

    What one date lacks nobody can compare: a pixel is valid where all bands are that are read together.
    """

    dates: tuple[Scene, Scene] = field(repr=False, compare=False)

    @property
    def parts(self) -> tuple[Scene, ...]:
        """See :attr:`Scene.parts`."""
        return self.dates

    @property
    def scaled_by(self) -> tuple[str, ...]:
        """See :attr:`Scene.scaled_by`."""
        return tuple(chain.from_iterable(date.scaled_by for date in self.dates))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of both."""
        return tuple(chain.from_iterable(date.files for date in self.dates))

    @property
    def cache_bytes(self) -> int:
        """See :attr:`Scene.cache_bytes`."""
        return sum(date.cache_bytes for date in self.dates)

    @cached_property
    def aliases(self) -> tuple[tuple[str, ...], ...]:
        """See :attr:`Scene.aliases`."""
        return tuple(chain.from_iterable(date.aliases for date in self.dates))

    @cached_property
    def class_bands(self) -> tuple[int, ...]:
        """See :attr:`Scene.class_bands`."""
        return self.categories

    def digest(self) -> str:
        """SHA-256 over those of both, in hexadecimal."""
        return digest_of_dates([date.digest() for date in self.dates])

    def read(self, window: Window, bands: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """See :meth:`Scene.read`."""
        data, valid = super().read(window, bands)
        return data, valid & valid.all(axis=0)

    def _raw(self, window: Window, bands: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        shape = (len(bands), window.height, window.width)
        data, valid = np.empty(shape, dtype=self.dtype), np.empty(shape, dtype=np.bool_)
        first = 0
        for date in self.dates:
            rows = [i for i, band in enumerate(bands) if first < band <= first + date.count]
            if rows:
                raw, good = date._raw(window, [bands[i] - first for i in rows])
                if date.nodata is not None and date.nodata_by != "scene":
                    good &= raw != raw.dtype.type(date.nodata)
                data[rows], valid[rows] = raw, good
            first += date.count
        return data, valid


def digest_of_dates(digests: Sequence[str]) -> str:
    """The digest of both, of those of each."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


@contextmanager
def open_dates(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str] | None,
    bands: _Bands = None,
    nodata: float | Literal["none"] | None = None,
    after_bands: _Bands = None,
) -> Iterator[Scene]:
    """Open two scenes as one, or ``before`` alone where there is no other.

    Args:
        before: as of `open_scene`.
        after: of the second date; None if there is one scene alone.
        bands: what will be selected of each; see `open_scene`.
        nodata: of both; see `open_scene`.
        after_bands: of the second, where other ones will be selected of it.

    Raises:
        GeomoeError: as `open_scene`, or where the two do not lie on one grid.
    """
    with open_scene(before, bands, nodata) as one:
        if after is None:
            yield one
            return
        with open_scene(after, after_bands or bands, nodata) as other:
            if differ := _difference(one, other):
                raise GeomoeError(
                    f"{one.path.name} and {other.path.name} differ in {differ}; dates are compared pixel by "
                    "pixel: bring one to the grid of the other, such as by gdalwarp"
                )
            yield DatedScene(**_described(one, other), dates=(one, other))


def _difference(one: Scene, other: Scene) -> str | None:
    """In what two grids differ, with what each has; None if they do not."""
    if one.crs != other.crs:
        return f"CRS: {_brief(one.crs)} and {_brief(other.crs)}"
    if (one.width, one.height) != (other.width, other.height):
        return f"size: {one.width} x {one.height} and {other.width} x {other.height} pixels"
    if same_transform(one.transform, other.transform, one.width, one.height):
        return None
    mine, its = one.transform, other.transform
    if mine is None or its is None:
        return f"place: only {(other if mine is None else one).path.name} says where it lies"
    if not np.allclose(mine[:2] + mine[3:5], its[:2] + its[3:5], rtol=1e-6, atol=0):
        sides = [f"{abs(at.a):g} x {abs(at.e):g}" for at in (mine, its)]
        return f"pixels: {sides[0]} and {sides[1]} of the coordinates"
    right, down = ~mine * (its.c, its.f)
    return f"place: the second begins {right:.3g} pixels right of the first and {down:.3g} below it"


def _brief(crs: object) -> str:
    text = " ".join(str(crs).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _described(one: Scene, other: Scene) -> dict[str, Any]:
    """Fields of both: those of the first, but what is of bands, and where they differ."""
    both = (one, other)
    dtype = np.result_type(one.dtype, other.dtype).name
    nodata = next((date.nodata for date in both if date.nodata is not None), None)
    validity = one.validity if one.validity == other.validity else "mask"
    times = [date.acquired for date in both]
    known = [time for time in times if time is not None]
    notes = tuple(dict.fromkeys((*one.notes, *other.notes)))
    if len(known) == 2 and known[1] < known[0]:
        notes += (f"{other.path.name} was taken before {one.path.name}, which was given as the first date",)
    joined = ("descriptions", "units", "scales", "offsets", "colorinterp", "band_tags")
    return {
        **{each.name: getattr(one, each.name) for each in fields(Scene)},
        **{name: getattr(one, name) + getattr(other, name) for name in joined},
        "count": one.count + other.count,
        "dtype": dtype if dtype in DTYPES else "float64",
        "nodata": nodata,
        "nodata_by": "user" if "user" in (one.nodata_by, other.nodata_by) else "scene",
        "validity": "nodata" if nodata is not None else validity,
        "tags": shared([date.tags for date in both]),
        "namespaces": shared([date.namespaces for date in both]),
        "categories": one.class_bands + tuple(one.count + band for band in other.class_bands),
        "neighbours": tuple(dict.fromkeys(one.neighbours + other.neighbours)),
        "acquired": "/".join(sorted(set(known))) if len(known) == 2 else None,
        "sensor": one.sensor if one.sensor == other.sensor else None,
        "notes": notes,
    }
