"""The data module of super-resolution training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from geomoe.data.datasets import DATA_SETS
from geomoe.data.images import MAX_PIXELS, Picture, find_images, notes_on, read_picture, sift
from geomoe.data.sample import Batch, Sample
from geomoe.data.split import Part, Split, hold_out
from geomoe.data.super_resolution.degradation import MIXED, REAL, get_degradation
from geomoe.data.super_resolution.layouts import (
    LAYOUTS,
    REAL_LAYOUTS,
    REFLECTANCE,
    SPLIT_LAYOUTS,
    STRETCHED_LAYOUTS,
    VALUES,
    Layout,
    find_layout,
    real_pairs,
)
from geomoe.data.super_resolution.mixed import MixedPairs, mixed_pairs
from geomoe.data.super_resolution.named import named_images
from geomoe.data.super_resolution.paired import valid_tiles
from geomoe.data.super_resolution.pairs import ImagePairs, Pairs, PatchStream, RealPairs, Share, mirror_to
from geomoe.data.super_resolution.sources import Source, said_of
from geomoe.errors import GeomoeError, expect
from geomoe.models.weights import LoadedModel
from geomoe.printable import counted
from geomoe.tasks.registry import register
from geomoe.tasks.stream import Named, StreamData
from geomoe.tasks.super_resolution import SuperResolution

__all__ = ["SuperResolutionData", "band_count"]


def band_count(bands: int | str) -> int:
    """How many bands a number or a list of names means."""
    return len(bands.split(",")) if isinstance(bands, str) else bands


class SuperResolutionData(StreamData):
    """Images held in memory and downsampled, or pairs of images that two sensors measured, cut into patches.

    Args:
        root: folder of the images, or of all ``sources``.
        sources: what the training set is mixed of, each with its share, degradations and what is held out of
            it; see :class:`geomoe.data.super_resolution.sources.Source`. They have layouts, degradations and
            names of bands of their own.
        layout: ``ucmerced`` (its training split, 63 images of which are kept for validation), ``aid`` (the
            same, 90 images), ``folder`` (every image or GeoTIFF below ``root``); of pairs that were measured
            ``oli2msi`` (scale 3), ``sen2venus`` (2 and 4), ``paired`` (GeoTIFFs in folders LR and HR); or
            ``auto``, the one that ``root`` is.
        scale: 2, 3, 4 or 8.
        bands: how many, or which of GeoTIFFs, by names or numbers with commas, such as ``B04,B03,B02``.
        degradation: a name of docs/degradations.md; measured pairs have none.
        patch_size: side of a low-resolution patch; smaller training images are continued by mirroring.
        validation: share kept for validation, at least one: of a folder's images, OLI2MSI's training pairs,
            Sen2Venus's acquisitions, paired low-resolution scenes.
        stretch: of OLI2MSI and Sen2Venus, values in the range that ``geomoe upscale`` gives a scene to the
            model in; else reflectance, as papers score.
        forget: of ``sources``, the probability with which a fact that is known of a patch is forgotten, so
            that an informed model learns to do without.
        tolerance: of ``paired``, by how much two grids may be off, in high-resolution pixels.
        skip_corrupt: whether images that cannot be read are left out; also ``--skip-corrupt``.
        max_pixels: that an image may have; it is looked at before any is decoded.
        stream: see :class:`geomoe.tasks.stream.StreamData`.
    """

    def __init__(
        self,
        root: str,
        sources: list[Source] | None = None,
        layout: Layout = "auto",
        scale: int = 4,
        bands: int | str = 3,
        degradation: str = "bilinear",
        patch_size: int = 64,
        validation: float = 0.05,
        stretch: bool = True,
        forget: float = 0.4,
        tolerance: float = 0.1,
        skip_corrupt: bool = False,
        max_pixels: int = MAX_PIXELS,
        **stream: Any,
    ) -> None:
        super().__init__(**stream)
        for name, value, least in (
            ("bands", band_count(bands), 1), ("patch_size", patch_size, 1), ("max_pixels", max_pixels, 1)
        ):  # fmt: skip
            expect(value >= least, f"data.{name}", value, f"a whole number from {least}")
        expect(0 <= validation < 1, "data.validation", validation, "a share, 0 to below 1")
        expect(0 <= forget <= 1, "data.forget", forget, "a probability, 0 to 1")
        expect(0 <= tolerance < math.inf, "data.tolerance", tolerance, "0 or more high-resolution pixels")
        self.save_hyperparameters(ignore=["root"])
        self.root = Path(root)
        self.sources = sources or []
        if self.sources and (layout != "auto" or degradation != "bilinear" or isinstance(bands, str)):
            raise GeomoeError(
                "data.sources have their own layouts, degradations and bands; leave --data.layout, "
                "--data.degradation and names of --data.bands out"
            )
        found = find_layout(self.root)
        self.layout: Layout = found if layout == "auto" else layout
        if layout not in (*LAYOUTS, "auto"):
            raise GeomoeError(f"no layout is called {layout!r}; there are: auto, {', '.join(LAYOUTS)}")
        if layout == "folder" and found not in ("folder", "paired", "sen2venus"):
            raise GeomoeError(
                f"{root} is {DATA_SETS[found].title}: all its images, with --data.layout folder, include its "
                "test split; leave the layout out, or point --data.root elsewhere"
            )
        self.scale, self.bands = scale, band_count(bands)
        self.names = bands if isinstance(bands, str) else None
        self.degradation = get_degradation(degradation)
        if self.real and degradation != "bilinear":
            raise GeomoeError(
                f"layout {self.layout} has low-resolution images that were measured, not made; "
                "leave --data.degradation out"
            )
        if self.degradation.compresses and self.bands != 3:
            raise GeomoeError(
                f"degradation {degradation} compresses as JPEG, which needs 3 bands, not {self.bands}; "
                "choose mtf_noise or blind_float"
            )
        self.patch_size, self.validation = patch_size, validation
        self.stretch, self.tolerance = stretch, tolerance
        self.skip_corrupt, self.max_pixels = skip_corrupt, max_pixels
        self.forget = forget if self.sources else None
        self._left_out = 0
        self._train: Pairs | None = None
        self._validation: Pairs | None = None

    @property
    def real(self) -> bool:
        """Whether the low-resolution images were measured and not made."""
        return not self.sources and self.layout in REAL_LAYOUTS

    @property
    def reflectance(self) -> bool:
        """Whether values are reflectance, as those of scenes at inference are not."""
        return self.layout in STRETCHED_LAYOUTS and not self.stretch

    @property
    def inputs(self) -> str:
        """What a card says of how the low-resolution images came about."""
        if self.sources:
            return MIXED
        return REAL if self.real else self.degradation.name

    def describe(self, source: str = "") -> dict[str, Any]:
        """What a card says of the data; ``source`` where the layout does not know it."""
        if self.sources:
            said = {"layout": "mixed", "validation": self.validation, "forget": self.forget}
            return {**said, "sources": [said_of(part) for part in self.sources]}
        known = DATA_SETS.get(self.layout)
        said = {
            "layout": self.layout,
            "source": source if known is None else known.said,
            "split": (known and known.split) or "all but validation",
        }
        said |= (
            {"left_out": f"{counted(self._left_out, 'image')} that could not be read"}
            if self._left_out
            else {}
        )
        return {**said, VALUES: REFLECTANCE} if self.reflectance else said

    def _files(self) -> tuple[list[Path], list[Path]]:
        if files := SPLIT_LAYOUTS.get(self.layout):
            return files(self.root, "fit"), files(self.root, "validation")
        return hold_out(find_images(self.root), self.validation, f"{self.root} holds one image")

    def _measured(self, part: Part) -> RealPairs:
        return real_pairs(
            self.layout,
            self.root,
            part,
            scale=self.scale,
            bands=self.bands,
            validation=self.validation,
            stretch=self.stretch,
            tolerance=self.tolerance,
            tile=self.patch_size,
            names=self.names,
            skip=self.skip_corrupt,
            say=warnings.warn,
        )

    def _mixed(self, part: Part) -> MixedPairs:
        return mixed_pairs(
            self.sources, self.root, part, scale=self.scale, bands=self.bands, validation=self.validation,
            patch=self.patch_size, skip=self.skip_corrupt, max_pixels=self.max_pixels, say=warnings.warn,
        )  # fmt: skip

    def _pictures(self, paths: Sequence[Path]) -> dict[Path, Picture]:
        """All images that can be read; what is amiss with them is told."""

        def read(path: Path) -> Picture:
            return read_picture(path, self.bands, self.names, self.max_pixels)

        found = dict(sift(paths, read, self.skip_corrupt, warnings.warn))
        self._left_out = len(paths) - len(found)
        for note in notes_on(found):
            warnings.warn(note, stacklevel=2)
        return found

    def _valid_parts(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Images whole, or where some pixels are not valid the patches of them that are."""
        least = self.patch_size * self.scale
        parts = []
        for picture in pictures:
            tiles = None if picture.valid is None else valid_tiles(picture.valid, least)
            cut = [] if tiles is None else [picture.data[:, y : y + h, x : x + w] for y, x, h, w in tiles]
            parts += [picture.data] if tiles is None else cut
        if not parts:
            raise GeomoeError(
                f"no image to train on, or none to validate on, has {least} x {least} valid pixels; choose a "
                "smaller --data.patch_size"
            )
        return parts

    def setup(self, stage: str | None = None) -> None:
        if self._train is not None:
            return
        if self.real:
            self._train, self._validation = self._measured("fit"), self._measured("validation")
            return
        if self.sources:
            self._train, self._validation = self._mixed("fit"), self._mixed("validation")
            return
        train, validation = self._files()
        least = self.patch_size * self.scale
        pictures = self._pictures([*train, *validation])
        images = self._valid_parts([pictures[path] for path in train if path in pictures])
        largest = max(min(image.shape[1:]) for image in images)
        if largest < least:
            # A few small images are continued by mirroring; patches of nothing else teach what is not there.
            raise GeomoeError(
                f"patch_size={self.patch_size}: at a scale of {self.scale} that is {least} pixels, and no "
                f"training image has more than {largest} on its shorter side; choose at most "
                f"{max(largest // self.scale, 1)}"
            )
        self._train = ImagePairs([mirror_to(image, least) for image in images], self.scale, self.degradation)
        kept = self._valid_parts([pictures[path] for path in validation if path in pictures])
        self._validation = ImagePairs(kept, self.scale, self.degradation)

    @property
    def recipe(self) -> dict[str, Any]:
        return {"patch_size": self.patch_size}

    def amount(self) -> str:
        assert self._train is not None
        assert self._validation is not None
        fit, validation = (counted(len(part), "image") for part in (self._train, self._validation))
        return f"{fit} to train on, {validation} to validate on"

    def stream(self, start: int, length: int, rank: int, world: int) -> Dataset[Sample]:
        assert self._train is not None
        return PatchStream(
            self._train, self.patch_size, self.scale, self.seed, start, length,
            rank=rank, world=world, forget=self.forget,
        )  # fmt: skip

    def held_out(self, rank: int, world: int) -> Dataset[Batch]:
        assert self._validation is not None
        return Share(self._validation, rank, world, informed=bool(self.sources))

    @classmethod
    def named(
        cls,
        root: Path,
        part: Split,
        weights: LoadedModel,
        *,
        skip_corrupt: bool = False,
        say: Callable[[str], None] = lambda line: None,
        degradation: str = "bilinear",
    ) -> Named:
        """As of every family; ``degradation`` is a name of docs/degradations.md, or ``real``."""
        asked = weights.contract
        samples = named_images(
            root, part, degradation, scale=asked.scale, bands=asked.bands, informed=asked.informed,
            stretch=weights.card.data.get(VALUES) != REFLECTANCE, skip=skip_corrupt, say=say,
        )  # fmt: skip
        known = DATA_SETS.get(find_layout(root))
        if known is None:
            return Named(root.resolve().name, samples)
        return Named(known.name, samples, known.sensor, known.gsd)


register(SuperResolution, SuperResolutionData)
