"""Sen2Venµs (Michel et al. 2022): Sentinel-2 at 10 and 20 m, Venµs at 5 m of the same days, in patches.

"SEN2VENµS, a Dataset for the Training of Sentinel-2 Super-Resolution Algorithms", Data 7(7). One folder for
each of 29 sites, one set of files for each acquisition: tensors ``[N, 4, side, side]`` of int16, reflectance
times 10,000.

| files | scale | sides | bands, in their order |
|---|---|---|---|
| ``*_10m_b2b3b4b8.pt``, ``*_05m_b2b3b4b8.pt`` | 2 | 128, 256 | B2, B3, B4, B8 |
| ``*_20m_b5b6b7b8a.pt``, ``*_05m_b5b6b7b8a.pt`` | 4 | 64, 256 | B5, B6, B7, B8A |

So the paper calls the files of the second line; those of the first release are called ``b4b5b6b8a`` on disk.
Both names are read. Four bands of the first line come as red, green, blue, near infrared, as scenes without
band names are taken to be; three are red, green, blue.

An ``index.csv`` beside the files lists them (columns ``tensor_10m_b2b3b4b8`` and so on, divided by tabs).
Where there is one, what it lists must be there.
"""

from __future__ import annotations

import csv
import pickle
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from geomoe.data.super_resolution.pairs import RealPairs
from geomoe.data.super_resolution.stretch import Stretch, divided, stretched
from geomoe.errors import GeomoeError
from geomoe.printable import counted

__all__ = ["Acquisition", "Sen2VenusPairs", "sen2venus_acquisitions"]

_REFLECTANCE = 10_000
_PRODUCTS = {2: ("10m", ("b2b3b4b8",)), 4: ("20m", ("b5b6b7b8a", "b4b5b6b8a"))}
_RED_FIRST = (2, 1, 0, 3)


class Acquisition:
    """The patches of one site and day. Its files are mapped, and read where they are looked at.

    Args:
        low, high: its files.
        scale: 2 or 4.
        bands: 1 to 4.
        stretch: whether values are brought to the model's range by the percentiles of the Sentinel-2 patches,
            as those of a scene are at inference; else they are reflectance.
    """

    def __init__(self, low: Path, high: Path, scale: int, bands: int, stretch: bool) -> None:
        if bands > 4:
            raise GeomoeError(f"Sen2Venus has 4 bands at a scale of {scale}, {bands} are wanted")
        self.low, self.high, self.scale, self.stretch = low, high, scale, stretch
        self.order = list((_RED_FIRST if scale == 2 else range(4))[:bands])

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """``[N, 4, h, w]`` and ``[N, 4, s h, s w]`` as stored."""
        low, high = _load(self.low), _load(self.high)
        n, bands, height, width = low.shape
        expected = (n, bands, height * self.scale, width * self.scale)
        if bands != 4 or high.shape != expected:
            raise GeomoeError(
                f"{self.low.name} has the shape {tuple(low.shape)} and its counterpart {tuple(high.shape)}; "
                f"expected [N, 4, h, w] and [N, 4, {self.scale} h, {self.scale} w]"
            )
        return low, high

    @cached_property
    def to_unit(self) -> Stretch:
        """The map of this acquisition, of both resolutions."""
        if not self.stretch:
            return divided(len(self.order), _REFLECTANCE)
        return stretched(self.tensors[0][:, self.order])

    def __len__(self) -> int:
        return len(self.tensors[0])

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """One patch of both, float32."""
        low, high = (self.to_unit(tensor[index][self.order]) for tensor in self.tensors)
        return low, high


def _load(path: Path) -> Tensor:
    try:
        try:
            tensor = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # a file of before torch 1.6 cannot be mapped
            tensor = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise GeomoeError(f"{path} is not a file of a single tensor, or is damaged; copy it again") from error
    if not isinstance(tensor, Tensor) or tensor.ndim != 4:
        raise GeomoeError(f"{path} holds no tensor [N, bands, height, width]")
    return tensor


class _Patches(Sequence[tuple[Tensor, Tensor]]):
    """Patches of several acquisitions in a row."""

    def __init__(self, places: Sequence[tuple[Acquisition, int]]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...
    @overload
    def __getitem__(self, index: slice) -> _Patches: ...
    def __getitem__(self, index: int | slice) -> tuple[Tensor, Tensor] | _Patches:
        if isinstance(index, slice):
            return _Patches(self.places[index])
        acquisition, i = self.places[index]
        return acquisition.pair(i)


class Sen2VenusPairs(RealPairs):
    """Pairs of several acquisitions, read where they are asked for.

    Args:
        acquisitions: from :func:`sen2venus_acquisitions`.
        scale: of all of them.
        at_most: so many pairs, spread evenly; ``None`` for all.
    """

    def __init__(self, acquisitions: Sequence[Acquisition], scale: int, at_most: int | None = None) -> None:
        places = [(of, i) for of in acquisitions for i in range(len(of))]
        step = 1 if at_most is None else max(1, -(-len(places) // at_most))
        places = places[::step]
        super().__init__(_Patches(places), scale)
        self._sides = [min(of.tensors[0].shape[2:]) for of, _ in places]

    @property
    def sides(self) -> Sequence[int]:
        """The smaller side of each low-resolution image, pixels."""
        return self._sides


def sen2venus_acquisitions(root: Path, scale: int, bands: int, stretch: bool) -> list[Acquisition]:
    """All acquisitions under ``root``, one site's folder or the folder of several, in order of their paths.

    Args:
        root: where to look, at any depth.
        scale: 2 for the 10 m bands, 4 for those of 20 m.
        bands: as :class:`Acquisition`.
        stretch: as :class:`Acquisition`.

    Raises:
        GeomoeError: another scale, nothing found, or files missing that a counterpart or an index asks for.
    """
    if scale not in _PRODUCTS:
        raise GeomoeError(f"Sen2Venus has pairs at scales of 2 (10 m) and 4 (20 m), not {scale}")
    resolution, names = _PRODUCTS[scale]
    found = sorted(path for name in names for path in root.rglob(f"*_{resolution}_{name}.pt"))
    pairs = [(low, _counterpart(low, resolution)) for low in found]
    missing = [high for _, high in pairs if not high.is_file()]
    for index in sorted(root.rglob("index.csv")):
        missing += [path for path in _listed(index, resolution, names) if path not in found]
    if missing:
        raise GeomoeError(f"{counted(len(missing), 'file')} of Sen2Venus missing, first {missing[0]}")
    if not pairs:
        raise GeomoeError(
            f"{root} holds no *_{resolution}_{names[0]}.pt; give the folder of Sen2Venus's unpacked sites"
        )
    return [Acquisition(low, high, scale, bands, stretch) for low, high in pairs]


def _counterpart(low: Path, resolution: str) -> Path:
    stem, bands = low.name.rsplit(f"_{resolution}_", 1)
    return low.with_name(f"{stem}_05m_{bands}")


def _listed(index: Path, resolution: str, names: Sequence[str]) -> list[Path]:
    """Low-resolution files that an index names, by the name that they have on disk."""
    with index.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    listed = [row.get(f"tensor_{resolution}_{name}") for row in rows for name in names]
    paths = [index.parent / Path(name).name for name in listed if name]
    return [_on_disk(path, names) for path in paths]


def _on_disk(path: Path, names: Sequence[str]) -> Path:
    for name in names:
        other = path.with_name(f"{path.stem.rsplit('_', 1)[0]}_{name}.pt")
        if other.is_file():
            return other
    return path
