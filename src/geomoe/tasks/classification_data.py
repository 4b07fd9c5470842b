"""The data module of classification: folders of classes, held in memory."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from geomoe.data.class_folders import Labelled, class_names, labelled_files
from geomoe.data.datasets import find_data_set
from geomoe.data.images import MAX_PIXELS, read_picture, sift, to_unit
from geomoe.data.labels import LabelBatches, LabelStream, places_in_class, resized
from geomoe.data.long_tail import long_tail
from geomoe.data.noise import Drowned
from geomoe.data.sample import Batch, Lazy, Sample
from geomoe.data.split import Part, Shares, Split, items_by_folder
from geomoe.errors import GeomoeError, expect
from geomoe.layers.sensors import sensor_slices
from geomoe.models.weights import LoadedModel
from geomoe.printable import counted
from geomoe.tasks.class_data import ClassData
from geomoe.tasks.classification import Classification
from geomoe.tasks.registry import register
from geomoe.tasks.stream import Named

__all__ = ["ClassificationData", "deal_of", "mean_and_std", "named_images"]

_DIGITS = 4


class ClassificationData(ClassData):
    """Images of a data set that has a folder for each class; see :mod:`geomoe.data.class_folders`.

    Args:
        root: folder of the data set, or of the classes.
        size: side that images are brought to, pixels.
        bands: channels of the images.
        sensors: whose bands the images stack, by name, with how many, in their order; a data set that is
            known has its own.
        turned: whether images to train on are turned in one of the eight ways that pixels stay pixels.
        noisy: share of the images to train on one of whose sensors shows noise alone, another one each time.
        imbalance: share of its training images that the rarest class keeps; classes between it and the first,
            which keeps all, fall off exponentially, in an order by chance of ``split_seed``
            (:func:`geomoe.data.long_tail.long_tail`). What is held out stays as it is.
        draw: whether to train on all ``images`` in turn, or on each of the ``classes`` as often.
        split: what is held out: what the data set's publishers, or else every k-th image (``usual``); or
            ``images`` of each class by chance.
        validation: share of images by chance that is validated on.
        test: share that is tested on.
        split_seed: of the split alone.
        skip_corrupt: whether images that cannot be read are left out; also ``--skip-corrupt``.
        max_pixels: that an image may have; it is looked at before any is decoded.
        stream: see :class:`geomoe.tasks.stream.StreamData`.
    """

    def __init__(
        self,
        root: str,
        size: int = 64,
        bands: int = 3,
        sensors: dict[str, int] | None = None,
        turned: bool = True,
        noisy: float = 0.0,
        imbalance: float = 1.0,
        draw: Literal["images", "classes"] = "images",
        split: Literal["usual", "images"] = "usual",
        validation: float = 0.1,
        test: float = 0.3,
        split_seed: int = 0,
        skip_corrupt: bool = False,
        max_pixels: int = MAX_PIXELS,
        **stream: Any,
    ) -> None:
        super().__init__(**stream)
        for name, value in (("size", size), ("bands", bands), ("max_pixels", max_pixels)):
            expect(value >= 1, f"data.{name}", value, "a whole number from 1")
        self.root, self.size, self.bands, self.turned = Path(root), size, bands, turned
        known = find_data_set(self.root, "labels")
        self.sensors = dict(sensors or (known.sensors if known else {}))
        if self.sensors and (min(self.sensors.values()) < 1 or sum(self.sensors.values()) != bands):
            raise GeomoeError(
                f"data.sensors={self.sensors}: expected the numbers of bands of each, {bands} in all"
            )
        expect(0 <= noisy <= 1, "data.noisy", noisy, "a share, 0 to 1")
        if noisy and not self.sensors:
            raise GeomoeError(
                f"data.noisy={noisy}: images are of one sensor; say by data.sensors which they are of"
            )
        self.noisy = noisy
        self._dealt = {"split": split, "validation": validation, "test": test, "split_seed": split_seed}
        self._thinned = {"imbalance": imbalance, "split_seed": split_seed} if imbalance != 1 else {}
        self.draw = draw
        self._deal = deal_of(self._dealt)
        self.skip_corrupt, self.max_pixels = skip_corrupt, max_pixels
        self.classes = class_names(self.root)
        self._left_out = 0
        self._called: set[tuple[str, ...]] = set()
        self._dtypes: set[str] = set()

    @cached_property
    def _fit(self) -> tuple[Tensor, Tensor]:
        return self._read("fit")

    @cached_property
    def _validation(self) -> tuple[Tensor, Tensor]:
        return self._read("validation")

    def listed(self, part: Split) -> list[Labelled]:
        """The images of a part."""
        return _listed(self.root, part, {**self._dealt, **self._thinned})

    def _read(self, part: Split) -> tuple[Tensor, Tensor]:
        """Images ``[N, bands, size, size]``, and labels ``[N]``."""
        listed = self.listed(part)

        def read(one: Labelled) -> Tensor:
            picture = read_picture(one.path, self.bands, None, self.max_pixels)
            self._called.add(picture.names)
            self._dtypes.add(picture.dtype)
            return resized(picture.data, self.size)

        found = sift(listed, read, self.skip_corrupt, warnings.warn)
        self._left_out += len(listed) - len(found)
        return _stacked([image for _, image in found]), labels_of([one for one, _ in found], self.classes)

    @property
    def band_names(self) -> tuple[str, ...]:
        return next(iter(self._called)) if len(self._called) == 1 else ()

    @property
    def dtypes(self) -> tuple[str, ...]:
        return tuple(sorted(self._dtypes))

    @cached_property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return mean_and_std(self._fit[0])

    @cached_property
    def counts(self) -> dict[str, int]:
        found = Counter(self._fit[1].tolist())
        return {name: found[index] for index, name in enumerate(self.classes)}

    @property
    def recipe(self) -> dict[str, Any]:
        turned = {} if self.turned else {"turned": False}
        noisy = {"noisy": self.noisy} if self.noisy else {}
        drawn = {} if self.draw == "images" else {"draw": self.draw}
        dealt = {} if self._deal is None else self._dealt
        return {"size": self.size, **turned, **noisy, **drawn, **dealt, **self._thinned}

    def describe(self, source: str = "") -> dict[str, Any]:
        known = find_data_set(self.root, "labels")
        said = {
            "layout": "class_folders" if known is None else known.name,
            "source": source if known is None else known.said,
            "split": f"fit: {counted(len(self._fit[0]), 'image')}, validated on {len(self._validation[0])}",
            "classes": self.counts,
        }
        left = f"{counted(self._left_out, 'image')} that could not be read"
        return {**said, "left_out": left} if self._left_out else said

    def amount(self) -> str:
        fit, validation = (counted(len(part[1]), "image") for part in (self._fit, self._validation))
        return f"{fit} to train on, {validation} to validate on"

    def stream(self, start: int, length: int, rank: int, world: int) -> Dataset[Sample]:
        even, change = self.draw == "classes", None
        if self.noisy:
            change = Drowned(self.noisy, tuple(sensor_slices(self.sensors).values()), *self.statistics)
        return LabelStream(
            *self._fit, self.seed, start, length, rank, world, self.turned, even=even, change=change
        )

    def held_out(self, rank: int, world: int) -> Dataset[Batch]:
        return LabelBatches(*self._validation, self.batch_size, rank, world)

    def once(self) -> Iterator[Batch]:
        batches = LabelBatches(*self._fit, self.batch_size)
        yield from (batches[i] for i in range(len(batches)))

    def samples(self, part: Split) -> Named:
        return named_images(
            self.listed(part), self.root, self.classes, self.size, self.bands, self.max_pixels,
            self.skip_corrupt, warnings.warn, sensors=self.sensors,
        )  # fmt: skip

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
        [of] = weights.contract.outputs.values()
        size, bands = weights.card.recipe.get("size"), weights.contract.bands
        if not isinstance(size, int):
            raise GeomoeError(
                f"the card of {weights.name} does not say what size of images it was trained on"
            )
        listed = _listed(root, part, weights.card.recipe)
        return named_images(
            listed, root, of.classes, size, bands, MAX_PIXELS, skip_corrupt, say,
            sensors=weights.contract.sensors,
        )  # fmt: skip


def mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each band of ``[N, C, H, W]`` as models see it, rounded; a deviation is above 0."""
    bands = [to_unit(band) for band in images.unbind(1)]
    mean, std = ([float(of(band)) for band in bands] for of in (torch.mean, torch.std))
    least = 10**-_DIGITS
    return tuple(round(m, _DIGITS) for m in mean), tuple(max(round(s, _DIGITS), least) for s in std)


def deal_of(options: Mapping[str, Any]) -> Callable[[Sequence[str]], list[Part]] | None:
    """How images are dealt by options, or by a recipe that may lack them; None for the usual split."""
    if options.get("split", "usual") == "usual":
        return None
    shares = Shares(options["validation"], options["test"])
    return partial(items_by_folder, shares=shares, seed=options["split_seed"])


def _listed(root: Path, part: Split, options: Mapping[str, Any]) -> list[Labelled]:
    """The images of a part, by options or by a recipe that may lack them; what is trained on is thinned."""
    deal, least = deal_of(options), options.get("imbalance", 1.0)
    if least == 1 or part in ("validation", "test"):
        return labelled_files(root, part, deal)
    fit = labelled_files(root, "fit", deal)
    kept = [fit[i] for i in long_tail([one.label for one in fit], least, options["split_seed"])]
    return kept if part == "fit" else kept + labelled_files(root, "validation", deal)


def named_images(
    listed: Sequence[Labelled],
    root: Path,
    classes: Sequence[str],
    size: int,
    bands: int,
    max_pixels: int,
    skip_corrupt: bool,
    say: Callable[[str], None],
    see: Callable[[Tensor, int], Tensor] = lambda image, place: image,
    sensors: Mapping[str, int] | None = None,
) -> Named:
    """Images that were listed, each read when it is asked for.

    Args:
        listed: the images.
        root: of the data set.
        classes: that may be among them, by their places.
        size: of an image.
        bands: of it.
        max_pixels: that an image may have.
        skip_corrupt: whether those that cannot be read are left out.
        say: called with a line about them.
        see: makes what is scored of an image, given the how manyth of its class it is.
        sensors: whose bands the images stack, by name, with how many; every image has all of them.

    Raises:
        GeomoeError: images of other classes, or that cannot be read.
    """

    def image(one: Labelled) -> Tensor:
        return _image(one.path, bands, size, max_pixels)

    labels_of(listed, classes)  # raises
    # All are looked at before the first is scored, and held by nobody.
    found = [one for one, _ in sift(listed, lambda one: len(image(one)), skip_corrupt, say)]
    labels = labels_of(found, classes)
    places = places_in_class(labels.tolist())
    known = find_data_set(root, "labels")

    def read(place: int) -> tuple[str, Sample]:
        sample = {"image": see(image(found[place]), places[place]), "label": labels[place]}
        if sensors:
            sample["present"] = torch.ones(len(sensors), size, size, dtype=torch.bool)
        return found[place].name, sample

    samples = Lazy(read, range(len(found)))
    if known is None:
        return Named(root.resolve().name, samples, sensors=sensors or {})
    return Named(known.name, samples, known.sensor, known.gsd, sensors or {})


def _image(path: Path, bands: int, size: int, max_pixels: int = MAX_PIXELS) -> Tensor:
    return resized(read_picture(path, bands, None, max_pixels).data, size)


def _stacked(images: Sequence[Tensor]) -> Tensor:
    """``[N, C, H, W]``; in float32 where not all are uint8."""
    alike = len({image.dtype for image in images}) == 1
    return torch.stack(list(images) if alike else [to_unit(image) for image in images])


def labels_of(listed: Sequence[Labelled], classes: Sequence[str]) -> Tensor:
    """``[N]`` int64, places in ``classes``; raises GeomoeError for a class that is not among them."""
    place = {name: index for index, name in enumerate(classes)}
    for one in listed:
        if one.label not in place:
            raise GeomoeError(
                f"{one.path} is of a class that is not known, {one.label}; there are: {', '.join(classes)}"
            )
    return torch.tensor([place[one.label] for one in listed])


register(Classification, ClassificationData)
