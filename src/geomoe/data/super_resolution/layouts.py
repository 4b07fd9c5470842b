"""Which data set a folder is, and its parts as pairs that two sensors measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from geomoe.data.datasets import DATA_SETS, find_data_set
from geomoe.data.images import sift
from geomoe.data.split import Part, hold_out
from geomoe.data.super_resolution.oli2msi import SCALE, oli2msi_files, oli2msi_folder, read_oli2msi
from geomoe.data.super_resolution.paired import match_scenes, paired_folders, read_paired
from geomoe.data.super_resolution.pairs import RealPairs
from geomoe.data.super_resolution.sen2venus import Sen2VenusPairs, sen2venus_acquisitions
from geomoe.errors import GeomoeError

__all__ = [
    "LAYOUTS",
    "REAL_LAYOUTS",
    "REFLECTANCE",
    "SPLIT_LAYOUTS",
    "STRETCHED_LAYOUTS",
    "VALUES",
    "Layout",
    "find_layout",
    "real_pairs",
]

Layout = str
"""The name of a data set, ``folder`` of images, or ``paired`` folders of images that two sensors measured."""

SPLIT_LAYOUTS = {name: one.files for name, one in DATA_SETS.items() if one.files is not None}
"""Those whose images have splits of their own, and where to ask for the files of one."""

STRETCHED_LAYOUTS = tuple(name for name, one in DATA_SETS.items() if one.kind == "pairs")
"""Those whose values are stretched, or left as reflectance where that is asked for."""

REAL_LAYOUTS = ("paired", *STRETCHED_LAYOUTS)
"""Those whose low-resolution images were measured: no degradation is applied."""

LAYOUTS = (*SPLIT_LAYOUTS, "folder", *REAL_LAYOUTS)
"""All."""

VALUES, REFLECTANCE = "values", "reflectance"
"""What a card's data say of a model that was trained on reflectance, on which it has to be scored too."""

_VALIDATION_PAIRS = 256
_SCORED = 8  # low-resolution pixels: fewer may be too few for the windows of SSIM

T = TypeVar("T")


def find_layout(root: Path) -> Layout:
    """What ``root`` looks like; ``folder`` where it is none of the known data sets."""
    if (known := find_data_set(root, "labels")) is not None and known.files is not None:
        return known.name
    if oli2msi_folder(root) is None and paired_folders(root) is not None:
        return "paired"
    return "folder" if (known := find_data_set(root, "pairs")) is None else known.name


def real_pairs(
    layout: Layout,
    root: Path,
    part: Part,
    *,
    scale: int,
    bands: int,
    validation: float = 0.05,
    stretch: bool = True,
    tolerance: float = 0.1,
    tile: int = 64,
    names: str | None = None,
    skip: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> RealPairs:
    """Part of a data set whose low-resolution images were measured.

    What is held out for validation is whole: images of OLI2MSI, acquisitions of Sen2Venus (of which at most
    256 pairs are taken), scenes of a folder. Only OLI2MSI has a test part; of the others it is everything, so
    what is to be tested on belongs in a folder of its own.

    Args:
        layout: one of ``REAL_LAYOUTS``.
        root: of the data set.
        part: ``fit`` and ``validation`` are what is there to train; ``test`` is to score.
        scale: that the pairs have.
        bands: the first ones.
        validation: share that is held out.
        stretch: of OLI2MSI and Sen2Venus, by the percentiles of the low-resolution image or acquisition, as
            at inference; else reflectance, as papers score.
        tolerance: of ``paired``, by how much two grids may be off, in high-resolution pixels.
        tile: of ``paired``, side of what is kept of scenes with invalid pixels, and the least that pairs to
            train on must share, low-resolution pixels.
        names: of the bands, if not the usual ones; of ``paired`` and ``oli2msi``.
        skip: whether files that cannot be read are left out; of ``paired`` and ``oli2msi``.
        say: called with a line that says how scenes were matched, and what is left out.

    Raises:
        GeomoeError: not the layout, another scale, or files that cannot be used.
    """

    def of_part(found: Sequence[T], kind: str) -> list[T]:
        if part == "test":
            return list(found)
        return hold_out(found, validation, f"{root} holds one {kind}")[part == "validation"]

    if layout == "oli2msi":
        if scale != SCALE:
            raise GeomoeError(f"OLI2MSI has pairs at a scale of {SCALE}, not {scale}")
        files = of_part(oli2msi_files(root, "test" if part == "test" else "train"), "pair")
        read = sift(files, lambda pair: read_oli2msi(*pair, bands, stretch, names), skip, say)
        return RealPairs([pair for _, pair in read], scale)
    if layout == "sen2venus":
        if names is not None:
            raise GeomoeError("the bands of Sen2Venus are known and red comes first; give their number")
        acquisitions = of_part(sen2venus_acquisitions(root, scale, bands, stretch), "acquisition")
        return Sen2VenusPairs(acquisitions, scale, _VALIDATION_PAIRS if part == "validation" else None)
    told = say if part != "validation" else lambda line: None  # once for both
    scenes = of_part(match_scenes(root, scale, tolerance, told), "scene with a counterpart")
    pairs = [pair for pairs in scenes for pair in pairs]
    least = tile if part == "fit" else _SCORED
    return RealPairs(read_paired(pairs, bands, tile, least, names=names, skip=skip, say=say), scale)
