"""The data module of learning in sessions: a few new classes at a time, as several satellites see them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from geomoe.data.class_folders import Labelled, labelled_files
from geomoe.data.exemplars import looks, nearest_to_mean
from geomoe.data.images import MAX_PIXELS
from geomoe.data.labels import LabelBatches, LabelStream, SwitchedStream, places_in_class
from geomoe.data.sample import Batch, Sample
from geomoe.data.satellites import Satellite, satellite
from geomoe.data.split import Split
from geomoe.errors import GeomoeError, expect
from geomoe.models.weights import LoadedModel
from geomoe.printable import counted
from geomoe.tasks.classification_data import ClassificationData, deal_of, mean_and_std, named_images
from geomoe.tasks.incremental import Incremental
from geomoe.tasks.registry import register
from geomoe.tasks.stream import Named
from geomoe.tasks.task import Task

__all__ = ["IncrementalData"]


class IncrementalData(ClassificationData):
    """A session of a data set that has a folder for each class.

    Classes come in the order of their names, so many in each session. The images of a class are shared out
    among the satellites, each of which takes other places, as :mod:`geomoe.data.satellites` says; the test
    images are taken by one that no training has seen.

    A model that is trained in stages sees all images of the session's new classes until its last stage, and
    then, as a model without stages does from the beginning, the equi-partite subset: as many exemplars of
    every class, old or new, and satellite. These are a function of the data alone; of old classes nothing
    else is trained on. :meth:`once` gives images of new classes that are kept from training, to judge experts
    by.

    Args:
        root: folder of the data set, or of the classes.
        session: from 1.
        session_classes: that each session brings.
        satellites: names of those that training images are taken by.
        unseen: name of the one that test images are taken by.
        exemplars: of each class and satellite.
        kept: images of each class and satellite that nothing learns from.
        images: see :class:`geomoe.tasks.classification_data.ClassificationData`.
    """

    def __init__(
        self,
        root: str,
        session: int = 1,
        session_classes: int = 6,
        satellites: Sequence[str] = ("D1", "D2", "D3"),
        unseen: str = "D4",
        exemplars: int = 5,
        kept: int = 4,
        **images: Any,
    ) -> None:
        super().__init__(root, **images)
        for name, value, least in (
            ("session", session, 1), ("session_classes", session_classes, 2), ("exemplars", exemplars, 1),
            ("kept", kept, 1),
        ):  # fmt: skip
            expect(value >= least, f"data.{name}", value, f"a whole number from {least}")
        if session * session_classes > len(self.classes):
            raise GeomoeError(
                f"data.session={session}: {len(self.classes)} classes are not enough for so many sessions of "
                f"{session_classes}"
            )
        expect(self.bands == 3, "data.bands", self.bands, "3, for satellites are made of red, green and blue")
        expect(not self.sensors, "data.sensors", self.sensors, "none, for satellites are of one sensor each")
        self._satellites = [satellite(name) for name in satellites]
        expect(len(self._satellites) > 0, "data.satellites", list(satellites), "one or more")
        satellite(unseen)  # raises
        self.session, self.session_classes, self.exemplars, self.kept = (
            session, session_classes, exemplars, kept
        )  # fmt: skip
        self._made = {"satellites": list(satellites), "unseen": unseen}
        self.classes = self.classes[: session * session_classes]
        self.known = len(self.classes) - session_classes

    def listed(self, part: Split) -> list[Labelled]:
        return [one for one in super().listed(part) if one.label in self.classes]

    @cached_property
    def _taken(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Training images as satellites take them, labels, satellites, and a number for each pair of both."""
        images, labels = self._fit
        places = places_in_class(labels.tolist())
        domain = torch.tensor(places) % len(self._satellites)
        group = labels * len(self._satellites) + domain
        number = len(self.classes) * len(self._satellites)
        if (least := int(torch.bincount(group, minlength=number).min())) < self.exemplars + self.kept:
            raise GeomoeError(
                f"the smallest class gives a satellite {counted(least, 'image')} to train on; "
                f"data.exemplars={self.exemplars} and data.kept={self.kept} want more"
            )
        return take(images, self._satellites, places), labels, domain, group

    @cached_property
    def _kept(self) -> Tensor:
        """Which of them are kept from training, bool: the last ones of every class and satellite."""
        *_, group = self._taken
        kept = torch.zeros(len(group), dtype=torch.bool)
        for number in group.unique():
            kept[(group == number).nonzero()[-self.kept :, 0]] = True
        return kept

    @cached_property
    def subset(self) -> Tensor:
        """Places of the equi-partite subset among the training images."""
        images, _, _, group = self._taken
        [free] = (~self._kept).nonzero(as_tuple=True)
        return free[nearest_to_mean(looks(images[free]), group[free], self.exemplars)]

    def _of(self, places: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        images, labels, domain, _ = self._taken
        return images[places], labels[places], {"domain": domain[places]}

    @cached_property
    def _new(self) -> Tensor:
        """Places of the training images of new classes that are learned from."""
        [places] = ((self._taken[1] >= self.known) & ~self._kept).nonzero(as_tuple=True)
        return places

    @cached_property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of the first session, which later ones must keep to: what a network learned rests on them."""
        images, labels, _, _ = self._taken
        return mean_and_std(images[labels < self.session_classes])

    @cached_property
    def counts(self) -> dict[str, int]:
        labels = self._taken[1]
        seen = torch.cat([self._new, self.subset]).unique()
        found = torch.bincount(labels[seen], minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, found, strict=True))

    @property
    def recipe(self) -> dict[str, Any]:
        return {
            **super().recipe, "session": self.session, "session_classes": self.session_classes,
            "exemplars": self.exemplars, "kept": self.kept, **self._made,
        }  # fmt: skip

    def describe(self, source: str = "") -> dict[str, Any]:
        said = super().describe(source)
        return {**said, "split": f"session {self.session}: {self.amount()}"}

    def amount(self) -> str:
        return (
            f"{counted(len(self._new), 'image')} of {self.session_classes} new classes and "
            f"{len(self.subset)} exemplars of {len(self.classes)} to train on, "
            f"{len(self._validation[0])} to validate on"
        )

    def stream(self, start: int, length: int, rank: int, world: int) -> Dataset[Sample]:
        even = self.draw == "classes"
        new, subset = (
            LabelStream(images, labels, self.seed, start, length, rank, world, self.turned, beside, even)
            for images, labels, beside in map(self._of, (self._new, self.subset))
        )
        return SwitchedStream(new, subset, self._switch)

    @property
    def _switch(self) -> int:
        """The first sample of the last stage; 0 for a model without stages."""
        if self.trainer is None:
            return 0
        task = self.trainer.lightning_module
        assert isinstance(task, Task)
        if self.trainer.max_steps < 1 or self.trainer.max_epochs not in (None, -1):
            raise GeomoeError(
                "a session takes a number of steps; give --trainer.max_steps, without max_epochs"
            )
        return task.stages.limits(self.trainer.max_steps)[0] * self.samples_per_step

    @cached_property
    def _held(self) -> Tensor:
        images, labels = self._validation
        return take(images, self._satellites, places_in_class(labels.tolist()))

    def held_out(self, rank: int, world: int) -> Dataset[Batch]:
        return LabelBatches(self._held, self._validation[1], self.batch_size, rank, world)

    def once(self) -> Iterator[Batch]:
        """Batches of the images of new classes that are kept from training, each once."""
        [places] = ((self._taken[1] >= self.known) & self._kept).nonzero(as_tuple=True)
        images, labels, beside = self._of(places)
        batches = LabelBatches(images, labels, self.batch_size, beside=beside)
        yield from (batches[i] for i in range(len(batches)))

    def samples(self, part: Split) -> Named:
        """As :meth:`named` gives them; to train on, what this session may see, by number."""
        if part in ("fit", "train"):
            images, labels, _ = self._of(torch.cat([self._new, self.subset]).unique())
            pairs = enumerate(zip(images, labels, strict=True))
            return Named(self.root.name, [(f"{i}", {"image": x, "label": y}) for i, (x, y) in pairs])
        return named_images(
            self.listed(part), self.root, self.classes, self.size, self.bands, self.max_pixels,
            self.skip_corrupt, warnings.warn, _eye(self._made, part),
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
        """Samples of the classes that the weights know: test images by the satellite that is not seen."""
        [of], recipe = weights.contract.outputs.values(), weights.card.recipe
        if not {"size", "satellites", "unseen"} <= recipe.keys():
            raise GeomoeError(f"the card of {weights.name} does not say what satellites it was trained on")
        listed = [one for one in labelled_files(root, part, deal_of(recipe)) if one.label in of.classes]
        eye = _eye(recipe, part)
        return named_images(listed, root, of.classes, recipe["size"], 3, MAX_PIXELS, skip_corrupt, say, eye)


def take(images: Tensor, satellites: Sequence[Satellite], places: Sequence[int]) -> Tensor:
    """``[N, 3, H, W]`` uint8, each image as seen by the satellite that its place in its class gives it to."""
    each = zip(images, places, strict=True)
    return torch.stack([satellites[place % len(satellites)](image, place) for image, place in each])


def _eye(made: Mapping[str, Any], part: Split) -> Callable[[Tensor, int], Tensor]:
    """How an image of a part is seen, given its place in its class."""
    names = [made["unseen"]] if part == "test" else made["satellites"]
    satellites = [satellite(name) for name in names]
    return lambda image, place: satellites[place % len(satellites)](image, place)


register(Incremental, IncrementalData)
