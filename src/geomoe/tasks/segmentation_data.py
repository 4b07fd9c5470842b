"""The data module of segmentation, in memory: cubes with labels, images with masks, plots, pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geomoe.data.crops import (
    CropStream,
    Draw,
    LabelledImage,
    WholeImages,
    band_statistics,
    class_counts,
    shown,
)
from geomoe.data.idtrees import Taxa
from geomoe.data.images import MAX_PIXELS
from geomoe.data.labelled import Labelled, Reading, read_labelled
from geomoe.data.legend import IGNORED
from geomoe.data.places import (
    Places,
    columns,
    random_pixels,
    spatial_blocks,
    whole_image,
)
from geomoe.data.points import points_of
from geomoe.data.recast import against_rest, reduced
from geomoe.data.sample import Batch, Lazy, Sample
from geomoe.data.split import Part, Shares, Split
from geomoe.errors import GeomoeError, expect
from geomoe.models.weights import LoadedModel
from geomoe.printable import counted
from geomoe.tasks.class_data import ClassData
from geomoe.tasks.registry import register
from geomoe.tasks.segmentation import Segmentation
from geomoe.tasks.stream import Named

__all__ = ["SegmentationData"]

_SPLIT = (
    "split",
    "block",
    "buffer",
    "validation",
    "test",
    "left_out",
    "split_seed",
    "images",
    "masks",
    "ignored",
)
"""Options that say what was held out; they go on the card, by which the test part is found again."""
_CLASSES = ("taxa", "stems")
"""Options that say what the classes of plots are; they go on the card likewise."""
_RECAST = ("reduce", "against_rest")
"""Options by which images are made others before they are split; on cards since they exist."""


class SegmentationData(ClassData):
    """Images whose pixels have classes; see :mod:`geomoe.data.cubes`, ``.masks``, ``.idtrees``, ``.dates``.

    Args:
        root: file of a cube or its folder, or folder of the images.
        split: what is held out: ``blocks`` of each image, apart from each other; single ``pixels`` of each
            class; ``columns``, of which the left ones are trained on and the right ones tested on; whole
            ``images`` of each folder; or the ``folder`` that is ``left_out``. See :mod:`geomoe.data.places`.
        block: side of a block, pixels.
        buffer: pixels between blocks, or columns, of two parts.
        validation: share that is validated on.
        test: share that is tested on.
        left_out: folder to test on, or the name of one image or pair; or several.
        split_seed: of the split alone, so that trainings of other seeds see the same.
        patch: side of the crops to train on, pixels.
        draw: what crops are drawn for; see :data:`geomoe.data.crops.Draw`.
        centre: whether crops are patches, of which the middle alone has a class; ``patch`` is odd then.
        sensors: whose bands the images stack, by name, with how many, in their order; a data set that is
            known has its own. Of pairs of dates, bands that each date is to have, where one is repeated.
        missing: share of the training crops that lack some of the sensors, though never all.
        bands: channels of images; a cube has its own, and so have pairs of dates.
        images: folder of images below ``root``, where masks lie in another one; several, one for each sensor,
            whose images of one name are stacked band by band. Of plots with crowns ``rgb`` for photographs.
        masks: folder of the masks.
        names: of the classes, in the order of their values, of a data set that is not known.
        ignored: value of the pixels whose class is not known; None where every value is a class.
        taxa: what the classes of plots with crowns are.
        stems: that each of these has at least.
        reduce: pixels to a side of the square of which each pixel is made.
        against_rest: the class that is told from all others; None to tell all apart.
        points: pixels of the smallest pieces of a class that are given a point each, a pixel by chance, in
            what is trained on; it has no other labels then. 0 for whole masks.
        max_pixels: that an image may have; it is looked at before any is decoded.
        stream: see :class:`geomoe.tasks.stream.StreamData`.
    """

    def __init__(
        self,
        root: str,
        split: Literal["blocks", "pixels", "columns", "images", "folder"] = "blocks",
        block: int = 12,
        buffer: int = 2,
        validation: float = 0.1,
        test: float = 0.3,
        left_out: str | list[str] | None = None,
        split_seed: int = 0,
        patch: int = 32,
        draw: Draw = "pixels",
        centre: bool = False,
        sensors: dict[str, int] | None = None,
        missing: float = 0.0,
        bands: int = 3,
        images: str | list[str] = "images",
        masks: str = "masks",
        names: list[str] | None = None,
        ignored: int | None = 0,
        taxa: Taxa = "species",
        stems: int = 15,
        reduce: int = 1,
        against_rest: str | None = None,
        points: int = 0,
        max_pixels: int = MAX_PIXELS,
        **stream: Any,
    ) -> None:
        super().__init__(**stream)
        for name, value in (
            ("patch", patch), ("bands", bands), ("reduce", reduce), ("max_pixels", max_pixels),
        ):  # fmt: skip
            expect(value >= 1, f"data.{name}", value, "a whole number from 1")
        for name, value in (("split_seed", split_seed), ("points", points)):
            expect(value >= 0, f"data.{name}", value, "a whole number from 0")
        if (split == "folder") != bool(left_out):
            raise GeomoeError(
                f"data.left_out={left_out!r}: expected a folder where data.split is folder, and only there"
            )
        self.root, self.split, self.block, self.buffer = Path(root), split, block, buffer
        self.validation, self.test, self.left_out, self.split_seed = validation, test, left_out, split_seed
        expect(patch % 2 == 1 or not centre, "data.patch", patch, "an odd number where data.centre is true")
        self.patch, self.draw, self.centre = patch, draw, centre
        expect(0 <= missing <= 1, "data.missing", missing, "a share, 0 to 1")
        self._sensors, self.missing = dict(sensors or {}), missing
        self.shared = Shares(validation, test)
        self.images, self.masks, self.ignored, self.taxa, self.stems = images, masks, ignored, taxa, stems
        self.reduce, self.against_rest, self.points = reduce, against_rest, points
        self._left_out = [left_out] if isinstance(left_out, str) else left_out or []
        self.reading = Reading(bands, images, masks, names, ignored, taxa, stems, max_pixels, self._sensors)

    @cached_property
    def _found(self) -> Labelled:
        """What the folder holds, its sensors by the names that they are to have."""
        found = reduced(read_labelled(self.root, self.reading), self.reduce)
        if self.against_rest is not None:
            found = against_rest(found, self.against_rest)
        if self.split in ("images", "folder") and not found.deals:
            raise GeomoeError(
                f"data.split={self.split!r}: a cube is one image; choose blocks, columns or pixels"
            )
        bands, sensors = len(found.images[0].image), self._sensors or found.sensors
        if not self._sensors and found.known and sum(found.known.sensors.values()) == bands:
            sensors = found.known.sensors
        if sensors and (len(sensors) < 2 or min(sensors.values()) < 1 or sum(sensors.values()) != bands):
            raise GeomoeError(
                f"data.sensors={dict(sensors)}: expected the numbers of bands of two sensors or more, "
                f"{bands} in all, as {found.name} has them"
            )
        if found.sensors and list(sensors.values()) != list(found.sensors.values()):
            raise GeomoeError(
                f"data.sensors={dict(sensors)}: {found.name} has {dict(found.sensors)}; only names may differ"
            )
        if self.missing and not sensors:
            raise GeomoeError(
                f"data.missing={self.missing}: {found.name} is of one sensor; say by data.sensors which "
                "there are"
            )
        return replace(found, sensors=dict(sensors))

    @cached_property
    def _held(self) -> list[LabelledImage]:
        """Its images, each with the parts that its pixels belong to."""
        found = self._found
        whole: Sequence[Part | None] = [None] * len(found.images)
        if self.split in ("images", "folder"):
            whole = found.parts(self.shared, self.split_seed, self._left_out)
        places = [self._places(one.mask, part) for one, part in zip(found.images, whole, strict=True)]
        return [
            LabelledImage(
                one.name, one.image, self._told(one.mask, place, number), place, one.valid, found.sensors,
                one.present,
            )
            for number, (one, place) in enumerate(zip(found.images, places, strict=True))
        ]  # fmt: skip

    def _told(self, mask: Tensor, places: Places, number: int) -> Tensor:
        """The mask of an image; where points are asked for, these alone of what is trained on."""
        if not self.points:
            return mask
        mine, rng = torch.from_numpy(places.of("fit")), np.random.default_rng((self.split_seed, number))
        pointed = points_of(mask.masked_fill(~mine, IGNORED).numpy(), self.points, rng)
        return torch.where(mine, torch.from_numpy(pointed), mask)

    def _places(self, mask: Tensor, part: Part | None) -> Places:
        if part is not None:
            return whole_image((mask.shape[0], mask.shape[1]), part)
        if self.split == "columns":
            return columns((mask.shape[0], mask.shape[1]), self.shared, self.buffer)
        if self.split == "pixels":
            return random_pixels(mask.numpy(), self.shared, self.split_seed)
        return spatial_blocks(mask.numpy(), self.shared, self.split_seed, self.block, self.buffer)

    @property
    def bands(self) -> int:
        """Channels of the images."""
        return len(self._held[0].image)

    @property
    def sensors(self) -> dict[str, int]:
        """Whose bands the images stack, by name, with how many; empty where they are of one."""
        return dict(self._held[0].sensors)

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Places, the folders of the images to train on; empty where there are not several."""
        both = zip(self._found.images, self._held, strict=True)
        folders = {one.folder for one, held in both if held.places.of("fit").any()}
        return tuple(sorted(folders)) if len(folders) > 1 else ()

    @property
    def band_names(self) -> tuple[str, ...]:
        return self._found.names

    @property
    def dtypes(self) -> tuple[str, ...]:
        return self._found.dtypes

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return self._found.legend.names

    @property
    def colours(self) -> tuple[str, ...]:
        """Of the classes."""
        return self._found.legend.colours

    @cached_property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return band_statistics(self._held)

    @cached_property
    def counts(self) -> dict[str, int]:
        counts = class_counts(self._held, "fit", len(self.classes)).sum(0).tolist()
        return dict(zip(self.classes, counts, strict=True))

    @property
    def radiometry(self) -> str:
        return self._found.radiometry

    @property
    def recipe(self) -> dict[str, Any]:
        return {
            "patch": self.patch,
            "draw": self.draw,
            "centre": self.centre,
            "missing": self.missing,
            "points": self.points,
            **{name: getattr(self, name) for name in (*_SPLIT, *_RECAST)},
            **{name: getattr(self, name) for name in _CLASSES if self._found.images[0].stand is not None},
        }

    def describe(self, source: str = "") -> dict[str, Any]:
        name, known = self._found.name, self._found.known
        fit, validation = self._pixels
        return {
            "layout": name,
            "source": source if known is None else known.said,
            "split": f"{self.split}; fit: {fit} pixels with a class, validated on {validation}",
            "classes": self.counts,
        }

    @property
    def _pixels(self) -> tuple[int, int]:
        """With a class, to train on and to validate on."""
        held, classes = self._held, len(self.classes)
        fit, validation = (int(class_counts(held, part, classes).sum()) for part in ("fit", "validation"))
        return fit, validation

    def amount(self) -> str:
        fit, validation = self._pixels
        images = counted(len(self._held), "image")
        return f"{fit} pixels with a class to train on, {validation} to validate on, of {images}"

    def stream(self, start: int, length: int, rank: int, world: int) -> Dataset[Sample]:
        number = {folder: place for place, folder in enumerate(self.domains)}
        both = zip(self._found.images, self._held, strict=True)
        return CropStream(
            [replace(held, domain=number.get(one.folder)) for one, held in both],
            self.mean,
            self.patch,
            self.draw,
            self.seed,
            start,
            length,
            rank,
            world,
            centre=self.centre,
            missing=self.missing,
        )

    def held_out(self, rank: int, world: int) -> Dataset[Batch]:
        return WholeImages(self._held, "validation", self.mean, rank, world)

    def once(self) -> Iterator[Batch]:
        batches = WholeImages(self._held, "fit", self.mean)
        yield from (batches[i] for i in range(len(batches)))

    def samples(self, part: Split) -> Named:
        return self._samples(part, self.mean)

    def _samples(self, part: Split, fill: Sequence[float]) -> Named:
        name, known = self._found.name, self._found.known
        images = WholeImages(self._held, part, fill).images  # type: ignore[arg-type]

        def read(place: int) -> tuple[str, Sample]:
            return images[place].name, shown(images[place], part, fill)  # type: ignore[arg-type]

        found = Lazy(read, range(len(images)))
        of = (known.sensor, known.gsd) if known else (None, None)
        return Named(name, found, *of, self.sensors)

    @classmethod
    def named(
        cls,
        root: Path,
        part: Split,
        weights: LoadedModel,
        *,
        skip_corrupt: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> Named:
        recipe, classes = weights.card.recipe, weights.contract.outputs["classes"].classes
        if missing := [name for name in _SPLIT if name not in recipe]:
            raise GeomoeError(
                f"the card of {weights.name} does not say its {missing[0]}, by which data are split"
            )
        if part == "train":
            raise GeomoeError("weights of segmentation are scored on the split fit, validation or test")
        options = {name: recipe[name] for name in (*_SPLIT, *_CLASSES, *_RECAST) if name in recipe}
        bands = weights.contract.bands
        sensors = dict(weights.contract.sensors)
        if options.get("against_rest") is None:
            options["names"] = list(classes)
        data = cls(str(root), bands=bands, sensors=sensors, **options)
        if (data.bands, data.classes) != (bands, classes):
            raise GeomoeError(
                f"{root} has {data.bands} bands and the classes {'; '.join(data.classes)}, where "
                f"{weights.name} knows {bands} and {'; '.join(classes)}"
            )
        return data._samples(part, weights.model.config.mean)  # type: ignore[arg-type]


register(Segmentation, SegmentationData)
