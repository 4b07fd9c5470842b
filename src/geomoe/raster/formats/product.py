"""The bands of a product of several files and grids, and which of them are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geomoe.errors import GeomoeError
from geomoe.raster.read.names import listed, matching

__all__ = ["Checksum", "ProductBand", "choose_bands", "coarser_bands", "only_names"]


@dataclass(frozen=True)
class Checksum:
    """What the bytes of a file must give.

    Attributes:
        algorithm: as :mod:`hashlib` calls it.
        value: in hexadecimal.
    """

    algorithm: str
    value: str


@dataclass(frozen=True)
class ProductBand:
    """One band of one file, and what the metadata of its product say of it.

    Attributes:
        name: of the band.
        file: where it is; of a product that is not unpacked, its name inside.
        pixel: its side on the ground, in units of the CRS; by it the grids of a product are distinguished.
        band: in the file, from 1.
        aliases: other names, by which it can be chosen.
        scale, offset: physical value = stored value * scale + offset; a file's own win, if it has some.
        nodata: of invalid pixels; a file's own wins, if it has one.
        checksum: of the file.
        classes: whether its values are classes or flags.
    """

    name: str
    file: Path
    pixel: float
    band: int = 1
    aliases: tuple[str, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    checksum: Checksum | None = None
    classes: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Its name, and the others."""
        return (self.name, *self.aliases)


def only_names(bands: str | Sequence[str | int] | None) -> list[str] | None:
    """The bands that a user named; ``None`` where none was, or a number is among them.

    Numbers count the bands of a product's finest grid, so they do not say which grid is meant.
    """
    if bands is None:
        return None
    wanted = bands.split(",") if isinstance(bands, str) else list(bands)
    texts = [str(item).strip() for item in wanted]
    numbers = any(text.casefold().removeprefix("band ").removeprefix("-").isdigit() for text in texts)
    return None if numbers or not texts else texts


def choose_bands(
    product: str, parts: Sequence[ProductBand], bands: str | Sequence[str | int] | None
) -> list[ProductBand]:
    """The parts of one grid that are meant.

    Args:
        product: its name, for messages.
        parts: at least one, on any number of grids.
        bands: what the user selects. Without names, all bands of the finest grid; with names, those, on the
            finest grid that has all of them.

    Raises:
        GeomoeError: if no grid has all of them, or a name stands for several bands of one.
    """
    grids = sorted({part.pixel for part in parts})
    names = only_names(bands)
    if names is None:
        return [part for part in parts if part.pixel == grids[0]]
    for pixel in grids:
        grid = [part for part in parts if part.pixel == pixel]
        found = [matching(name, [part.names for part in grid]) for name in names]
        if all(found):
            for name, places in zip(names, found, strict=True):
                if len(places) > 1:
                    several = ", ".join(grid[i].name for i in places)
                    raise GeomoeError(f"{name!r} of {product} may be any of {several}; name one of them")
            return [grid[i] for i in dict.fromkeys(places[0] for places in found)]
    held = [
        f"of {pixel:g}: {listed([part.name for part in parts if part.pixel == pixel])}" for pixel in grids
    ]
    unknown = [name for name in names if not matching(name, [part.names for part in parts])]
    lacks = f"no band {listed(unknown)}" if any(unknown) else f"no grid with {listed(names)}"
    raise GeomoeError(f"{product} has {lacks}; choose bands of one pixel size: {'; '.join(held)}")


def coarser_bands(parts: Sequence[ProductBand], chosen: Sequence[ProductBand]) -> list[str]:
    """A sentence on the bands that are on none but other grids than the chosen ones, if there are some."""
    pixel, here = chosen[0].pixel, {part.name for part in parts if part.pixel == chosen[0].pixel}
    others = {
        part.name: part.pixel for part in reversed(parts) if part.pixel != pixel and part.name not in here
    }
    if not others:
        return []
    each = [
        f"{listed([name for name in reversed(others) if others[name] == size])} (pixels of {size:g})"
        for size in sorted(set(others.values()))
    ]
    return [f"left out, as they have larger pixels: {', '.join(each)}; choose a grid by naming its bands"]
