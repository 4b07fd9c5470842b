"""Patches of a place that radar saw before and an optical sensor after, by whether their middle changed.

They are cut out of a pair of :mod:`geomoe.data.dates`, as GeoTIFFs of four bands: ``changed/test_0017.tif``.
Blocks of the image are dealt to the parts, so far from each other that no pixel is in patches of two parts.
Of each part both classes are drawn alike often, so that accuracies are means of the two classes; patches of
one part overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomoe.data.dates import CHANGE, dated_files, read_dates
from geomoe.data.places import spatial_blocks
from geomoe.data.split import PARTS, Part, Shares, Split
from geomoe.errors import GeomoeError
from geomoe.files import new_folder

__all__ = ["PATCH_SENSORS", "SIDE", "make_radar_optical", "radar_optical_files"]

PATCH_SENSORS = {"radar": 1, "optical": 3}
"""Of the patches, each with the number of its bands."""
SIDE = 16
"""Of a patch, pixels; its middle is the pixel after this many halves."""

_BANDS = ("radar", "red", "green", "blue")
_COUNTS: dict[Part, int] = {"fit": 800, "validation": 80, "test": 400}
"""Patches of each class, at most."""
_BLOCK, _SHARES = 64, Shares(validation=0.1, test=0.3)


def make_radar_optical(folder: Path, scene: Path, seed: int = 0) -> None:
    """Write patches of a pair into a new folder.

    Args:
        folder: that is made; it is there when all of it is.
        scene: the truth of the pair, ``NAME_gt``; beside it lie ``NAME_1``, a radar image of one band, and
            ``NAME_2``, an optical one, both of 8 bits.
        seed: of all that is drawn.

    Raises:
        GeomoeError: something is there already, a pair that cannot be used, or that it cannot be written.
    """
    from geomoe.data.rasters import write_raster  # rasterio is wanted for this alone

    image, middles = _dealt(scene, seed)
    with new_folder(folder) as made:
        for label in CHANGE.names:
            (made / label).mkdir()
        for name, row, column in middles:
            patch = image[:, row - SIDE // 2 : row + SIDE // 2, column - SIDE // 2 : column + SIDE // 2]
            write_raster(made / f"{name}.tif", patch, _BANDS, (None, None))


def _dealt(scene: Path, seed: int) -> tuple[NDArray[np.uint8], list[tuple[str, int, int]]]:
    """The image ``[4, H, W]``, from 1, as 0 is no measurement; names of patches with their middles."""
    found = [one for one in dated_files(scene.parent) if one.truth == scene]
    if not found:
        raise GeomoeError(f"{scene} is no truth of a pair; expected NAME_gt beside NAME_1 and NAME_2")
    (pair,) = read_dates(found, PATCH_SENSORS)
    if pair.data.min() < 0 or pair.data.max() > 255:
        raise GeomoeError(f"{scene} is of images with values beyond 0 to 255; expected 8 bits")
    labels = np.full(pair.changed.shape, -1)
    inner = np.s_[SIDE // 2 : 1 - SIDE // 2, SIDE // 2 : 1 - SIDE // 2]  # whole patches fit around these
    labels[inner] = np.where(pair.present.all(0), pair.changed, -1)[inner]
    parts = spatial_blocks(labels, _SHARES, seed, _BLOCK, SIDE)
    middles = list(_drawn(labels, parts.parts, np.random.default_rng(seed)))
    return pair.data.clip(1, 255).astype(np.uint8), middles


def _drawn(
    labels: NDArray[np.integer], parts: NDArray[np.int8], rng: np.random.Generator
) -> Iterator[tuple[str, int, int]]:
    for place, part in enumerate(PARTS):
        each = [np.argwhere((parts == place) & (labels == label)) for label in range(len(CHANGE.names))]
        count = min(_COUNTS[part], *map(len, each))
        if not count:
            raise GeomoeError(f"nothing that {part} holds of the pair changed, or all; give a larger one")
        for label, middles in zip(CHANGE.names, each, strict=True):
            for i, (row, column) in enumerate(rng.permutation(middles)[:count]):
                yield f"{label}/{part}_{i:04}", int(row), int(column)


def radar_optical_files(root: Path, split: Split) -> list[Path]:
    """Paths of a split below the folder of the classes."""
    parts = ("fit", "validation") if split == "train" else (split,)
    return sorted(path for part in parts for path in root.glob(f"*changed/{part}_*.tif"))
