"""IDTReeS: plots of forest by a hyperspectral camera and a laser scanner, and the crowns of their trees.

A folder holds ``hsi/PLOT.tif``, reflectance in any number of bands; ``chm/PLOT.tif``, the height of the
canopy in metres on the same grid; maybe ``rgb/PLOT.tif``, a photograph in bytes; and ``crowns.csv``, a line
for each crown with its ``plot``, ``site``, ``individual``, ``species`` (may be empty) and its box,
``column_min``, ``row_min``, ``column_max`` and ``row_max``, in pixels of 10 cm from the upper left corner of
its plot.

Crowns are round and their boxes are not: a pixel is a crown's if its middle lies in the ellipse that fills
the box. Where crowns of two classes, or of one that is not known, meet, nobody knows which is above.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geomoe.data.images import MAX_PIXELS
from geomoe.data.legend import Legend
from geomoe.data.stacks import Stack, read_stack
from geomoe.errors import GeomoeError, expect

__all__ = [
    "Crown", "Plot", "Taxa", "idtrees_folder", "read_crowns", "read_photograph", "read_plots", "stands_of",
]  # fmt: skip

Taxa = Literal["species", "genus"]
"""What the classes are; a tree whose species nobody wrote down is of ``Quercus sp.``, a class of its own."""

_WORDS: dict[Taxa, int] = {"species": 2, "genus": 1}
"""Of the scientific name, without its author."""
_PIXEL = 0.1
"""Side of the pixels that boxes are measured in, metres."""
_NEAR = 10.0
"""Plots less than this apart, metres, are one stand: they share trees, or show crowns beside each other."""
_BOX = ("column_min", "row_min", "column_max", "row_max")
_COLUMNS = ("plot", "site", "individual", "species", *_BOX)


@dataclass(frozen=True, eq=False)
class Plot:
    """A plot in memory.

    Attributes:
        name: of its site and its own, ``MLBS/MLBS_1``.
        image: ``[C + 1, H, W]`` float32, reflectance as the file has it and height, metres; or ``[3, H, W]``
            uint8, the photograph.
        present: ``[S, H, W]`` bool, the pixels that each sensor measured: these two, or the camera.
        labels: ``[H, W]`` int32, values of the legend; 0 where there is no crown of a class.
        stand: number of the plots that lie together with this one, from 0.
    """

    name: str
    image: NDArray[np.float32] | NDArray[np.uint8]
    present: NDArray[np.bool_]
    labels: NDArray[np.int32]
    stand: int

    @property
    def site(self) -> str:
        """Where it lies."""
        return self.name.split("/")[0]

    @property
    def sensors(self) -> dict[str, int]:
        """Numbers of their bands, by name; empty of a photograph."""
        several = {"hyperspectral": len(self.image) - 1, "height": 1}
        return several if len(self.present) > 1 else {}


@dataclass(frozen=True)
class Crown:
    """A tree's crown in a plot.

    Attributes:
        plot: name of the plot.
        site: where the plot lies.
        individual: the tree.
        name: its class; empty where nobody wrote down its species.
        box: left, top, right and bottom edge, metres from the upper left corner of the plot.
    """

    plot: str
    site: str
    individual: str
    name: str
    box: tuple[float, float, float, float]


def idtrees_folder(root: Path) -> Path | None:
    """The folder that holds the data set: ``root`` itself; None where it does not."""
    held = (root / "crowns.csv").is_file() and all((root / name).is_dir() for name in ("hsi", "chm"))
    return root if held else None


def read_plots(
    root: Path, taxa: Taxa = "species", stems: int = 15, max_pixels: int = 10**6, photographs: bool = False
) -> tuple[list[Plot], Legend]:
    """All plots that have crowns, sorted by name, and what their labels mean: names in alphabetical order.

    Args:
        root: folder of the data set.
        taxa: what the classes are.
        stems: that a class has at least, as individuals; trees of rarer ones are of no class. With 1 none is.
        max_pixels: that a plot may have.
        photographs: in the place of reflectance and height.

    Raises:
        GeomoeError: files that cannot be used, or fewer than two classes.
    """
    expect(taxa in _WORDS, "taxa", taxa, "species or genus")
    expect(stems >= 1, "stems", stems, "a whole number from 1")
    crowns = read_crowns(root, taxa)
    trees: dict[str, set[str]] = {}
    for crown in crowns:
        trees.setdefault(crown.name, set()).add(crown.individual)
    names = sorted(name for name, found in trees.items() if name and len(found) >= stems)
    if len(names) < 2:
        raise GeomoeError(f"{root} has {len(names)} classes of {stems} trees or more; expected two")
    by_plot: dict[str, list[Crown]] = {}
    for crown in crowns:
        by_plot.setdefault(crown.plot, []).append(crown)
    plots, corners = [], []
    for plot, mine in by_plot.items():
        read = _photograph if photographs else _images
        image, present, (x, y, side) = read(root, f"{plot}.tif", max_pixels)
        high, wide = image.shape[1:]
        labels = _labels(mine, names, (high, wide), side)
        plots.append(Plot(f"{mine[0].site}/{plot}", image, present, labels, 0))
        corners.append((x, y, x + side * wide, y + side * high))
    stands = stands_of([plot.site for plot in plots], corners)
    placed = [replace(plot, stand=stand) for plot, stand in zip(plots, stands, strict=True)]
    return sorted(placed, key=lambda plot: plot.name), Legend(tuple(names))


def read_crowns(root: Path, taxa: Taxa = "species") -> list[Crown]:
    """All crowns of the data set, in the order of its table; raises GeomoeError where that cannot be used."""
    path, words = root / "crowns.csv", _WORDS[taxa]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            if missing := [name for name in _COLUMNS if name not in (lines.fieldnames or ())]:
                raise GeomoeError(f"{path} has no column {missing[0]}; expected {', '.join(_COLUMNS)}")
            return [_crown(line, f"{path}, line {lines.line_num}", words) for line in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GeomoeError(f"{path} cannot be read: {error}") from error


def _crown(line: Mapping[str, str | None], where: str, words: int) -> Crown:
    plot, site, individual, species, *edges = (line[name] or "" for name in _COLUMNS)
    try:
        left, top, right, bottom = (float(edge) * _PIXEL for edge in edges)
    except ValueError:
        raise GeomoeError(f"{where}: a box {edges}; expected four numbers") from None
    if not (left < right and top < bottom):
        raise GeomoeError(f"{where}: a box {edges}; expected {', '.join(_BOX)}, each least below its most")
    return Crown(plot, site, individual, " ".join(species.split()[:words]), (left, top, right, bottom))


def _images(
    root: Path, name: str, max_pixels: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[float, ...]]:
    """Reflectance and height stacked, what is measured, and where they lie: west, south, side of a pixel."""
    hyperspectral, height = (root / folder / name for folder in ("hsi", "chm"))
    stack = read_stack([hyperspectral, height], max_pixels)
    if stack.bands[1] != 1:
        raise GeomoeError(f"{height} has {stack.bands[1]} bands; expected one, the height of the canopy")
    return stack.data, stack.present, _lies(stack, hyperspectral)


def _photograph(
    root: Path, name: str, max_pixels: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], tuple[float, ...]]:
    """As :func:`_images`, of the camera."""
    path = root / "rgb" / name
    image, stack = read_photograph(path, max_pixels)
    return image, stack.present, _lies(stack, path)


def read_photograph(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[NDArray[np.uint8], Stack]:
    """``[3, H, W]``, and what it is made of, whose ``box`` says where it lies.

    Raises:
        GeomoeError: a file that cannot be read or is too large, no photograph in bytes, or without a grid.
    """
    stack = read_stack([path], max_pixels)
    _lies(stack, path)
    if stack.bands != (3,) or stack.data.max() > 255:
        raise GeomoeError(f"{path} is no image of red, green and blue of eight bits")
    return stack.data.astype(np.uint8), stack


def _lies(stack: Stack, path: Path) -> tuple[float, ...]:
    if stack.box is None:
        raise GeomoeError(f"{path} does not say where it lies; expected a GeoTIFF with a grid")
    west, south, _, _, side = stack.box
    return west, south, side


def _labels(
    crowns: Sequence[Crown], names: Sequence[str], shape: tuple[int, int], side: float
) -> NDArray[np.int32]:
    """Values of the legend, 0 where there is no crown, or where it is not known of which class."""
    free, unclear = -1, -2
    claims = np.full(shape, free, np.int32)
    y, x = ((np.arange(size) + 0.5) * side for size in shape)
    for crown in crowns:
        left, top, right, bottom = crown.box
        across = (2 * x - left - right) / (right - left)
        down = (2 * y - top - bottom) / (bottom - top)
        inside = down[:, None] ** 2 + across**2 <= 1
        value = names.index(crown.name) + 1 if crown.name in names else 0
        claims[inside] = np.where(np.isin(claims[inside], (free, value)), value, unclear)
    return np.maximum(claims, 0)


def stands_of(sites: Sequence[str], corners: Sequence[tuple[float, float, float, float]]) -> list[int]:
    """A number for each plot, the same for those of a site that lie near each other, one by one.

    Args:
        sites: of the plots.
        corners: west, south, east and north of each, metres.
    """
    stands = list(range(len(sites)))
    for a, b in combinations(range(len(sites)), 2):
        (west, south, east, north), other = corners[a], corners[b]
        apart = max(west - other[2], other[0] - east, south - other[3], other[1] - north)
        if sites[a] == sites[b] and apart < _NEAR and stands[a] != stands[b]:
            old, new = stands[b], stands[a]
            stands = [new if stand == old else stand for stand in stands]
    return stands
