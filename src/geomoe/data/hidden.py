"""Crops of images, most of whose squares are hidden: a stream to train on that can be resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from geomoe.data.images import to_unit
from geomoe.data.labels import resized
from geomoe.data.sample import Batch, Sample

__all__ = ["HiddenBatches", "HiddenStream"]


class HiddenStream(Dataset[Sample]):
    """Sample i of an endless stream of crops; the same i gives the same crop, always.

    A crop of any size, the logarithm of its side drawn evenly, is brought to ``size``: the same things
    are seen near and far. It is turned in one of the eight ways that pixels stay pixels.

    Args:
        images: of each source, ``[C, H, W]``, uint8 or float32 in about [0, 1].
        shares: of the samples that are of each source.
        size: side of a sample, pixels.
        zoom: largest side of a crop over ``size``; of a smaller image the whole.
        cell: side of the squares that are hidden or shown; divides ``size``.
        hidden: share of them that is hidden.
        seed: of the stream.
        start, length: the samples ``start .. start + length * world - 1`` are offered,
        rank, world: of them every ``world``-th, from ``rank``.
    """

    def __init__(
        self,
        images: Sequence[Sequence[Tensor]],
        shares: Sequence[float],
        size: int,
        zoom: float,
        cell: int,
        hidden: float,
        seed: int,
        start: int,
        length: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.images, self.shares = images, np.array(shares) / sum(shares)
        self.size, self.zoom, self.cells = size, zoom, size // cell
        self.hide = min(max(round(hidden * self.cells**2), 1), self.cells**2 - 1)
        self.seed, self.start, self.length, self.rank, self.world = seed, start, length, rank, world

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, self.start + index * self.world + self.rank))
        source = self.images[rng.choice(len(self.images), p=self.shares)]
        image = source[int(rng.integers(len(source)))]
        most = min(image.shape[1:])
        largest = min(most, self.size * self.zoom)
        side = min(round(self.size * math.exp(rng.random() * math.log(max(largest / self.size, 1)))), most)
        y, x = (int(rng.integers(whole - side + 1)) for whole in image.shape[1:])
        crop = to_unit(resized(image[:, y : y + side, x : x + side], self.size))
        crop = crop.flip([dim for dim in (1, 2) if rng.random() < 0.5])
        crop = crop.transpose(1, 2) if rng.random() < 0.5 else crop
        hidden = torch.zeros(self.cells**2, dtype=torch.bool)
        hidden[torch.from_numpy(rng.permutation(self.cells**2)[: self.hide])] = True
        return {"image": crop.contiguous(), "hidden": hidden.view(self.cells, self.cells)}


class HiddenBatches(Dataset[Batch]):
    """Batches of a stream's samples, each in one of several processes; the last ones may be empty.

    Args:
        stream: of all samples.
        batch_size: samples in a batch.
        rank, world: every ``world``-th batch, from ``rank``.
    """

    def __init__(self, stream: HiddenStream, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.stream, self.batch_size, self.rank, self.world = stream, batch_size, rank, world

    def __len__(self) -> int:
        return -(-len(self.stream) // (self.batch_size * self.world))

    def __getitem__(self, index: int) -> Batch:
        first = (index * self.world + self.rank) * self.batch_size
        some = range(first, min(first + self.batch_size, len(self.stream)))
        batch: Batch = default_collate([self.stream[i] for i in some] or [self.stream[0]])
        return {name: value[: len(some)] for name, value in batch.items()}
