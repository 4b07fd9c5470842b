"""OLI2MSI (Wang et al. 2021): Landsat-8 at 30 m and Sentinel-2 at 10 m of the same days, in pairs.

"Multisensor Remote Sensing Imagery Super-Resolution with Conditional GAN", Journal of Remote Sensing. 5,225
pairs to train and 100 to test, in ``train_lr``, ``train_hr``, ``test_lr`` and ``test_hr``: GeoTIFFs of equal
names, 160x160 and 480x480 pixels, float32 reflectance of the three visible bands, left in the order that they
have. Files of integers are taken to be reflectance times 10,000, and other sizes as they are, if they have a
ratio of 3. Held in memory, all training pairs take 16 GB.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from geomoe.data.super_resolution.stretch import divided, stretched
from geomoe.errors import GeomoeError
from geomoe.printable import counted

__all__ = ["SCALE", "oli2msi_files", "oli2msi_folder", "read_oli2msi"]

SCALE = 3

_REFLECTANCE = 10_000
_SUFFIXES = (".tif", ".tiff")


def oli2msi_folder(root: Path) -> Path | None:
    """The folder of ``train_lr`` and ``train_hr``, or of the test's: ``root`` or its ``OLI2MSI``."""
    for folder in (root, root / "OLI2MSI"):
        if any(all((folder / f"{part}_{r}").is_dir() for r in ("lr", "hr")) for part in ("train", "test")):
            return folder
    return None


def oli2msi_files(root: Path, part: str) -> list[tuple[Path, Path]]:
    """Low- and high-resolution files of ``train`` or ``test``, in order of their names.

    Raises:
        GeomoeError: not the layout, or a file without its counterpart.
    """
    folder = oli2msi_folder(root)
    if folder is None:
        raise GeomoeError(
            f"{root} holds no train_lr and train_hr; give the unpacked archive's folder of OLI2MSI"
        )
    low, high = (_by_name(folder / f"{part}_{r}") for r in ("lr", "hr"))
    alone = sorted(low.keys() ^ high.keys())
    if alone or not low:
        what = (
            f"{counted(len(alone), 'file')} without a counterpart, first {alone[0]}"
            if alone
            else "no GeoTIFF"
        )
        raise GeomoeError(f"{folder}: {part}_lr and {part}_hr hold {what}; unpack the archive again")
    return [(low[name], high[name]) for name in sorted(low)]


def _by_name(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES}


def read_oli2msi(
    low: Path, high: Path, bands: int, stretch: bool, names: str | None = None
) -> tuple[Tensor, Tensor]:
    """One pair as float32, ``[bands, h, w]`` and ``[bands, 3 h, 3 w]``.

    Args:
        low: file of Landsat-8.
        high: file of Sentinel-2.
        bands: how many are wanted, the first ones.
        stretch: by the percentiles of the low-resolution image; else reflectance.
        names: of the bands, if not the usual ones.

    Raises:
        GeomoeError: files that cannot be read, too few bands, or sizes that have another ratio.
    """
    from geomoe.data.rasters import read_values  # rasterio is wanted for these files alone

    images = [read_values(path, bands, names) for path in (low, high)]
    (small, integer), (large, _) = images
    if large.shape[1:] != (small.shape[1] * SCALE, small.shape[2] * SCALE):
        raise GeomoeError(
            f"{low.name} has {small.shape[2]} x {small.shape[1]} pixels and its counterpart "
            f"{large.shape[2]} x {large.shape[1]}; expected {SCALE} times as many along each side"
        )
    a, b = torch.from_numpy(small), torch.from_numpy(large)
    to_unit = stretched(a) if stretch else divided(bands, _REFLECTANCE if integer else 1)
    return to_unit(a), to_unit(b)
