"""Images with labels, held in memory: a stream to train on that can be resumed, and batches to score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from geomoe.data.images import to_unit
from geomoe.data.long_tail import balanced
from geomoe.data.sample import Batch, Sample

__all__ = ["LabelBatches", "LabelStream", "SwitchedStream", "places_in_class", "resized"]


def places_in_class(labels: Sequence[int]) -> list[int]:
    """The how manyth of its class each item is, from 0."""
    found: list[int] = []
    so_far: dict[int, int] = {}
    for label in labels:
        found.append(so_far.get(label, 0))
        so_far[label] = found[-1] + 1
    return found


def resized(image: Tensor, side: int) -> Tensor:
    """``[C, H, W]`` to ``[C, side, side]``, antialiased, of the same type; an image of that size as it is."""
    if image.shape[1:] == (side, side):
        return image
    made = F.interpolate(image[None].float(), (side, side), mode="bilinear", antialias=True)[0]
    return made.round().clamp(0, 255).to(torch.uint8) if image.dtype == torch.uint8 else made


class LabelStream(Dataset[Sample]):
    """Sample i of an endless stream: all images in an order of chance, then all again in another.

    Nothing depends on what was drawn before. Images are turned in one of the eight ways that pixels stay
    pixels, unless they have an up and a left.

    Args:
        images: ``[N, C, H, H]``, uint8 or float32 in about [0, 1].
        labels: ``[N]`` int64.
        seed: of the stream.
        start, length: the samples ``start .. start + length * world - 1`` are offered,
        rank, world: of them every ``world``-th, from ``rank``.
        turned: whether images are turned.
        beside: further values of each image by name, ``[N, ...]``.
        even: whether each class has the same chance for every sample, in the place of each image its turn.
        change: of an image in [0, 1], by chance: what is shown in its place.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        seed: int,
        start: int,
        length: int,
        rank: int = 0,
        world: int = 1,
        turned: bool = True,
        beside: Mapping[str, Tensor] | None = None,
        even: bool = False,
        change: Callable[[Tensor, np.random.Generator], Tensor] | None = None,
    ) -> None:
        self.even, self.change = even, change
        self.images, self.labels, self.seed, self.turned = images, labels, seed, turned
        self.beside = dict(beside or {})
        self.start, self.length, self.rank, self.world = start, length, rank, world
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.length

    def number(self, index: int) -> int:
        """Of a sample that is offered, in the endless stream."""
        return self.start + index * self.world + self.rank

    def __getitem__(self, index: int) -> Sample:
        turn, place = divmod(self.number(index), len(self.images))
        if self._order is None or self._order[0] != turn:
            self._order = turn, np.random.default_rng((self.seed, turn)).permutation(len(self.images))
        rng = np.random.default_rng((self.seed, turn, place))
        chosen = balanced(self.labels.numpy(), rng) if self.even else int(self._order[1][place])
        image = self.images[chosen]
        if self.turned:
            image = image.flip([dim for dim in (1, 2) if rng.random() < 0.5])
            image = image.transpose(1, 2) if rng.random() < 0.5 else image
        beside = {name: values[chosen] for name, values in self.beside.items()}
        image = to_unit(image).contiguous()
        shown = image if self.change is None else self.change(image, rng)
        return {"image": shown, "label": self.labels[chosen], **beside}


class SwitchedStream(Dataset[Sample]):
    """One stream up to a sample, and from it on another that offers the same numbers.

    Args:
        first, second: streams.
        switch: number of the first sample that is of ``second``.
    """

    def __init__(self, first: LabelStream, second: LabelStream, switch: int) -> None:
        self.first, self.second, self.switch = first, second, switch

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: int) -> Sample:
        return (self.first if self.first.number(index) < self.switch else self.second)[index]


class LabelBatches(Dataset[Batch]):
    """Whole batches of one of several processes, each sample in one process; the last ones may be empty.

    Args:
        images: ``[N, C, H, H]``.
        labels: ``[N]`` int64.
        batch_size: samples in a batch.
        rank, world: every ``world``-th batch, from ``rank``.
        beside: further values of each image by name, ``[N, ...]``.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        beside: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.beside = dict(beside or {})
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return -(-len(self.images) // (self.batch_size * self.world))

    def __getitem__(self, index: int) -> Batch:
        first = (index * self.world + self.rank) * self.batch_size
        some = slice(first, first + self.batch_size)
        beside = {name: values[some] for name, values in self.beside.items()}
        return {"image": to_unit(self.images[some]), "label": self.labels[some], **beside}
