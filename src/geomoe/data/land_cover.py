"""Land cover of five places by Sentinel-2, and of Landsat tiles that show one class, in the same seven bands.

For what a network is worth at a place, or by a sensor, that it has not seen. Of the five places each is cut
into four quarters, ``images/sentinel-2/PLACE/nw.tif``, with the land cover that comes with it. The tiles of
BigEarthNet-Landsat, ``images/landsat-8/TILE.tif``, have no map but the names of the CORINE classes that are
on them: those are taken whose names all mean one class here, which is then the class of every pixel. Masks
lie under the same names in ``masks``.

Both come as reflectance in bytes, ``1 + reflectance / 0.002``, 0 where there is no measurement. Tiles were
not taken on the day that their names say, so that their labels know no clouds, snow or ice: pixels of them
that are bright in blue have no class.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geomoe.data.legend import Legend
from geomoe.data.masks import masked_files, read_mask
from geomoe.errors import GeomoeError
from geomoe.files import new_folder

if TYPE_CHECKING:
    from geomoe.data.rasters import Grid

__all__ = ["BANDS", "LAND_COVER", "STEP", "land_cover_folder", "make_land_cover"]

BANDS = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
"""Of both sensors, in this order."""
STEP = 0.002
"""Reflectance of one step of the bytes."""

LAND_COVER = Legend(
    (
        "water", "trees", "flooded vegetation", "crops", "built area", "bare ground", "snow, ice", "clouds",
        "rangeland",
    ),
    colours=(
        "#1a5bab", "#358221", "#87d19e", "#ffdb5c", "#ed022a", "#b09a76", "#a8ebff", "#616161", "#c8b98a",
    ),
)  # fmt: skip
"""Classes of ESRI's land cover, from 1."""

_SENTINEL2 = (1, 2, 3, 4, 9, 11, 12)
"""Numbers of :data:`BANDS` among the twelve of level 2A."""
_LANDSAT8 = (1, 2, 3, 4, 5, 6, 7)
_SCALE, _SCALE_LANDSAT, _OFFSET_LANDSAT = 1e-4, 2.75e-5, 0.2
_SHIFTED = {"433D_629L_3_1": 0.1}
"""Places whose values have the offset that products have since 2022: in no band is any pixel below 0.096."""
_BRIGHT = 0.3
"""Reflectance in blue of clouds, snow and ice, and of little else."""
_CORINE = {
    "water": ("Sea and ocean", "Water bodies", "Water courses", "Coastal lagoons"),
    "trees": ("Broad-leaved forest", "Coniferous forest", "Mixed forest"),
    "crops": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "built area": ("Continuous urban fabric", "Discontinuous urban fabric", "Industrial or commercial units"),
    "bare ground": ("Bare rock", "Beaches, dunes, sands"),
    "rangeland": ("Pastures", "Natural grassland", "Moors and heathland", "Sclerophyllous vegetation"),
}
"""Classes of CORINE that mean one class here; others are of several, such as orchards, or of none."""
_MEANS = {name: LAND_COVER.names.index(cover) + 1 for cover, names in _CORINE.items() for name in names}


def land_cover_folder(root: Path) -> Path | None:
    """The folder that holds what :func:`make_land_cover` wrote, ``root`` itself; None where it does not."""
    held = all((root / kind / "sentinel-2").is_dir() for kind in ("images", "masks"))
    return root if held and (root / "images" / "landsat-8").is_dir() else None


def make_land_cover(folder: Path, root: Path) -> str:
    """Write images and masks of both sensors into a new folder.

    Args:
        folder: that is made; it is there when all of it is.
        root: folder of ``five_places``, with ``S2L2A`` and ``LULC``, and of ``landsat_tiles``, with
            ``images`` and ``labels``.

    Returns:
        How many there are of what, in words.

    Raises:
        GeomoeError: something is there already, a folder that lacks them, files that cannot be used, or that
            it cannot be written.
    """
    places = masked_files(root / "five_places", "S2L2A", "LULC")
    tiles, labels = sorted((root / "landsat_tiles" / "images").glob("*.tif")), root / "landsat_tiles/labels"
    if not tiles:
        raise GeomoeError(f"{root} has no landsat_tiles/images/*.tif; give the folder of all data")
    covers = Counter[str]()
    with new_folder(folder) as made:
        for place in places:
            _quarters(made, place.image, read_mask(place.mask))
        for tile in tiles:
            cover = _one_cover(labels / f"{tile.stem}_labels_metadata.json")
            covers[LAND_COVER.names[cover - 1] if cover and _whole(made, tile, cover) else ""] += 1
    left = covers.pop("", 0)
    listed = ", ".join(f"{number} of {name}" for name, number in covers.most_common())
    return (
        f"{4 * len(places)} quarters of places; tiles: {listed or 'none'}; left out, of several classes, "
        f"bright or without labels: {left}"
    )


def _one_cover(path: Path) -> int | None:
    """The value of the class that all labels of a tile mean; None where there are several, or no labels."""
    if not path.is_file():
        return None
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["labels"]
        found = {_MEANS.get(name) for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GeomoeError(f"{path} cannot be read: {error}") from error
    return found.pop() if len(found) == 1 else None


def _quarters(made: Path, path: Path, mask: NDArray[np.integer]) -> None:
    shift = _SHIFTED.get(path.stem, 0.0)
    image, valid, (crs, at) = _reflectance(path, _SENTINEL2, _SCALE, shift)
    if mask.shape != valid.shape:
        raise GeomoeError(f"{path} has {list(valid.shape)} pixels, its mask {list(mask.shape)}")
    middle = [side // 2 for side in mask.shape]
    for name in ("nw", "ne", "sw", "se"):
        top, left = middle[0] * ("s" in name), middle[1] * ("e" in name)
        part = (slice(top, top + middle[0]), slice(left, left + middle[1]))
        grid = (crs, None if at is None else at * at.translation(left, top))
        _save(
            made, f"sentinel-2/{path.stem}/{name}", image[:, *part], valid[part], mask[part], grid,
        )  # fmt: skip


def _whole(made: Path, path: Path, cover: int) -> bool:
    """Whether half of a tile is of its class; it is written then."""
    image, valid, grid = _reflectance(path, _LANDSAT8, _SCALE_LANDSAT, _OFFSET_LANDSAT)
    mask = np.where(valid & (image[BANDS.index("blue")] <= _BRIGHT), cover, 0)
    enough = bool(2 * np.count_nonzero(mask) >= mask.size)
    if enough:
        _save(made, f"landsat-8/{path.stem}", image, valid, mask, grid)
    return enough


def _reflectance(
    path: Path, bands: tuple[int, ...], scale: float, offset: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Grid]:
    """Of bands by their numbers, and where all are measured: 0 in a file is no measurement."""
    from geomoe.data.rasters import read_reflectance  # rasterio is wanted for these files alone

    image, valid, grid = read_reflectance(path, [str(band) for band in bands], scale)
    return image - np.float32(offset), valid & (image > 0).all(0), grid


def _save(
    made: Path,
    name: str,
    image: NDArray[np.float32],
    valid: NDArray[np.bool_],
    mask: NDArray[np.integer],
    grid: Grid,
) -> None:
    from geomoe.data.rasters import write_raster

    steps = (1 + np.rint(image / STEP)).clip(1, 255).astype(np.uint8)
    paths = [made / kind / f"{name}.{end}" for kind, end in (("images", "tif"), ("masks", "png"))]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_raster(paths[0], np.where(valid, steps, np.uint8(0)), BANDS, grid)
    Image.fromarray(np.where(valid, mask, 0).astype(np.uint8)).save(paths[1])
