"""A training set mixed of several: their folders and shares, how they are downsampled, what is held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, Self

from torch import Tensor

from geomoe.data.images import MAX_PIXELS, find_images, notes_on, read_picture, sift
from geomoe.data.split import Part, every_of_each
from geomoe.data.super_resolution.blind import AnyOf
from geomoe.data.super_resolution.degradation import Degrader, get_degradation
from geomoe.data.super_resolution.layouts import REAL_LAYOUTS, SPLIT_LAYOUTS, find_layout
from geomoe.data.super_resolution.made import get_surface
from geomoe.data.super_resolution.paired import valid_tiles
from geomoe.data.super_resolution.variants import check_variants
from geomoe.errors import GeomoeError, expect
from geomoe.layers.super_resolution.known import SENSORS, Known

__all__ = ["Source", "read_part", "said_of"]


@dataclass(frozen=True)
class Source:
    """One of the sets that a training set is mixed of.

    Attributes:
        name: as results and cards call it.
        folder: of the images, below the root of all sources; may be empty: the root itself.
        made: instead of a folder, kinds of surfaces, of :data:`geomoe.data.super_resolution.made.SURFACES`.
        share: of all patches, beside the other sources' shares.
        files: pattern of the images below the folder, such as ``tile*/*.jpg``; ``*`` is
            any text, of several folders too.
        bands: which of GeoTIFFs, by names or numbers with commas; one alone is taken in the place of all.
        degradations: shares by name.
        variants: shares by name; see :data:`geomoe.data.super_resolution.variants.VARIANTS`.
        held_out: share that is held out for testing and never trained on.
        by: what is held out whole: ``image``, every k-th of each folder; ``folder``, the last folders in
            alphabetical order; ``area``, the right-hand side of every image. Folders in the layout of
            UCMerced or AID have their own split.
        sensor: of the images, as in :data:`geomoe.layers.super_resolution.known.SENSORS`, where it is known.
        gsd: ground sampling distance of the images in metres, where it is known.
        source: what the images are, with source and terms, for the card.
    """

    name: str
    folder: str = ""
    made: tuple[str, ...] = ()
    share: float = 1.0
    files: str = "*"
    bands: str | None = None
    degradations: dict[str, float] = field(default_factory=lambda: {"bilinear": 1.0})
    variants: dict[str, float] = field(default_factory=dict)
    held_out: float = 0.2
    by: Literal["image", "folder", "area"] = "image"
    sensor: str | None = None
    gsd: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for kind in self.made:
            get_surface(kind)
        if self.made and (self.folder or self.bands):
            raise GeomoeError(
                f"source {self.name}: made surfaces have no folder and no bands; leave them out"
            )
        expect(0 <= self.share < math.inf, f"{self.name}.share", self.share, "a number from 0")
        expect(0 <= self.held_out < 1, f"{self.name}.held_out", self.held_out, "a share, 0 to below 1")
        expect(bool(self.degradations), f"{self.name}.degradations", self.degradations, "at least one")
        for name, share in self.degradations.items():
            get_degradation(name)
            expect(share > 0, f"{self.name}.degradations.{name}", share, "a share above 0")
        if self.made and self.degradation.compresses:
            raise GeomoeError(f"source {self.name}: JPEG needs 8-bit images, which made surfaces are not")
        expect(self.gsd is None or 0 < self.gsd < math.inf, f"{self.name}.gsd", self.gsd, "metres, above 0")
        check_variants(self.variants)
        if self.sensor not in (None, *SENSORS):
            raise GeomoeError(
                f"source {self.name}: no sensor is called {self.sensor!r}; there are: {', '.join(SENSORS)}"
            )

    @classmethod
    def from_card(cls, said: Mapping[str, Any]) -> Self:
        """From what :func:`said_of` gave; raises TypeError or GeomoeError for anything else."""
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}
        return cls(**options)

    @property
    def known(self) -> Known:
        """What is known of all its images.

        An image that was downsampled stands for one that its sensor took: it is told of the sensor's pixels,
        as a scene of the sensor will be, not of its own.
        """
        return Known(self.sensor, self.gsd)

    @property
    def one_band(self) -> bool:
        """Whether one band is used in place of all."""
        return self.bands is not None and "," not in self.bands

    @property
    def degradation(self) -> Degrader:
        """Of all its patches, drawn for each."""
        named = [get_degradation(name) for name in self.degradations]
        if len(named) == 1:
            return named[0]
        total = sum(self.degradations.values())
        shares = tuple(share / total for share in self.degradations.values())
        return AnyOf(self.inputs, tuple(named), shares)

    @property
    def inputs(self) -> str:
        """How its low-resolution images come about, in words."""
        total = sum(self.degradations.values())
        if len(self.degradations) == 1:
            return next(iter(self.degradations))
        return " + ".join(f"{share / total:.2g} {name}" for name, share in self.degradations.items())


def said_of(source: Source) -> dict[str, Any]:
    """What a card says of a source: what is not as a source is unless it says otherwise."""
    plain = {name: getattr(Source(source.name), name) for name in asdict(source)}
    said = {name: value for name, value in asdict(source).items() if value != plain[name]}
    return {"name": source.name, "share": source.share, "degradations": source.degradations, **said}


def _files(source: Source, root: Path, part: Part, validation: float) -> list[Path]:
    """The images of a part; of what is held out by area, all of them."""
    folder = root / source.folder
    layout = find_layout(folder)
    if layout in REAL_LAYOUTS:
        raise GeomoeError(
            f"source {source.name}: {folder} holds measured pairs ({layout}), which are not mixed"
        )
    if files := SPLIT_LAYOUTS.get(layout):
        return files(folder, part)
    found = [
        path for path in find_images(folder) if fnmatch(path.relative_to(folder).as_posix(), source.files)
    ]
    if not found:
        raise GeomoeError(f"source {source.name}: {folder} holds no image that matches {source.files}")
    if source.by == "area":
        return found
    if source.by == "image":
        rest, test = every_of_each(found, source.held_out)
    else:
        folders = sorted({path.parent for path in found})
        kept = folders[len(folders) - math.ceil(source.held_out * len(folders)) :]
        test = [path for path in found if path.parent in kept]
        rest = [path for path in found if path.parent not in kept]
    if part == "test":
        return test
    return every_of_each(rest, validation)[part == "validation"]


def _columns(width: int, held_out: float, part: Part, validation: float) -> slice:
    """Of an image that is held out by area: to train on from the left, then to validate on, then to test."""
    test = width - round(held_out * width)
    fit = test - round(validation * test)
    return {"fit": slice(0, fit), "validation": slice(fit, test), "test": slice(test, width)}[part]


def read_part(
    source: Source,
    root: Path,
    part: Part,
    *,
    bands: int,
    validation: float,
    least: int,
    skip: bool = False,
    max_pixels: int = MAX_PIXELS,
    say: Callable[[str], None] = lambda line: None,
) -> list[tuple[str, Tensor]]:
    """Images of a part of a source, with their paths below its folder.

    Args:
        source: with a folder.
        root: of all sources.
        part: what is held out is ``test``; the rest is ``fit`` and ``validation``.
        bands: of the images.
        validation: share of what is not held out.
        least: pixels of the sides that an image keeps where some of its pixels are not valid.
        skip: whether images that cannot be read are left out.
        max_pixels: that an image may have.
        say: called with a line about them, and about the others.

    Returns:
        ``[bands, H, W]``, uint8 or float32 in about [0, 1].
    """
    folder = root / source.folder
    one = source.one_band
    pictures = dict(
        sift(
            _files(source, root, part, validation),
            lambda path: read_picture(path, 1 if one else bands, source.bands, max_pixels),
            skip,
            say,
        )
    )
    for note in notes_on(pictures):
        say(f"source {source.name}: {note}")
    found = []
    for path, picture in pictures.items():
        data = picture.data.expand(bands, -1, -1) if one else picture.data
        valid = picture.valid
        if source.by == "area":
            columns = _columns(data.shape[2], source.held_out, part, validation)
            data, valid = data[..., columns], None if valid is None else valid[:, columns]
        name = path.relative_to(folder).as_posix()
        if valid is None or valid.all():
            found.append((name, data))
        else:
            found += [(name, data[:, y : y + h, x : x + w]) for y, x, h, w in valid_tiles(valid, least)]
    return found
