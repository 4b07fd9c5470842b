"""Data modules whose samples are a stream: a run that is resumed sees what it would have seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset

from geomoe.data.other_sensor import as_other_sensor
from geomoe.data.sample import Batch, Lazy, Sample
from geomoe.data.split import Split
from geomoe.errors import GeomoeError, expect
from geomoe.layers.sensors import by_band, without
from geomoe.models.weights import LoadedModel

__all__ = ["Named", "StreamData"]


@dataclass(frozen=True)
class Named:
    """Samples to score.

    Attributes:
        data: name of the data set, or of its folder.
        samples: each with its name, such as its path below the folder that was given; perhaps
            :class:`geomoe.data.sample.Lazy`, so go over them once.
        sensor: that took them; None where it is not one alone, or not known.
        gsd: ground sampling distance in metres; None where it is not one alone, or not known.
        sensors: whose bands the images stack, by name, with how many; empty where they are of one.
    """

    data: str
    samples: Sequence[tuple[str, Sample]]
    sensor: str | None = None
    gsd: float | None = None
    sensors: Mapping[str, int] = field(default_factory=dict)

    def without(self, names: Sequence[str], fill: Sequence[float]) -> Named:
        """The same samples as if some sensors had not been there.

        Args:
            names: of the sensors.
            fill: value of each band, or of all, that is shown in place of what is taken away.

        Raises:
            GeomoeError: a sensor that there is not, or none that stays.
        """
        for name in names:
            if name not in self.sensors:
                there = ", ".join(self.sensors) or "one sensor, without a name"
                raise GeomoeError(f"{self.data} has no sensor {name!r}; it has: {there}")
        if names and set(names) == set(self.sensors):
            raise GeomoeError(f"{self.data} has the sensors {', '.join(self.sensors)}; leave one of them")
        shown = torch.tensor(fill, dtype=torch.float32).view(-1, 1, 1)

        def read(place: int) -> tuple[str, Sample]:
            called, sample = self.samples[place]
            present = sample["present"]
            for name in names:
                present = without(present, self.sensors, name)
            image = torch.where(by_band(present, self.sensors), sample["image"], shown)
            return called, {**sample, "image": image, "present": present}

        return replace(self, samples=Lazy(read, range(len(self.samples)))) if names else self

    def of_other_sensor(self) -> Named:
        """The same samples as :func:`geomoe.data.other_sensor.as_other_sensor` shows them.

        Raises:
            GeomoeError: when a sample is read that has not three bands.
        """

        def read(place: int) -> tuple[str, Sample]:
            called, sample = self.samples[place]
            return called, {**sample, "image": as_other_sensor(sample["image"])}

        return replace(self, samples=Lazy(read, range(len(self.samples))))


class StreamData(pl.LightningDataModule):
    """Base of the data of every task.

    One epoch is ``steps_per_epoch`` optimiser steps, the last one as many as are left of ``max_steps``; its
    samples depend on ``seed`` and the number of the epoch alone, so a run resumed at the end of an epoch sees
    what it would have seen. Processes, and batches whose gradients are accumulated, share the samples of a
    step among them: w processes and n batches of b see what one batch of w n b would have held.

    A family defines :meth:`stream`, :meth:`held_out` and :meth:`describe`.

    Args:
        batch_size: samples in a batch of one process.
        steps_per_epoch: optimiser steps between two validations.
        seed: of the stream.
        workers: processes that make samples; the samples do not depend on their number.
    """

    def __init__(
        self, batch_size: int = 4, steps_per_epoch: int = 500, seed: int = 0, workers: int = 0
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1), ("steps_per_epoch", steps_per_epoch, 1), ("workers", workers, 0),
            ("seed", seed, 0),
        ):  # fmt: skip
            expect(value >= least, f"data.{name}", value, f"a whole number from {least}")
        self.batch_size, self.steps_per_epoch, self.seed, self.workers = (
            batch_size, steps_per_epoch, seed, workers
        )  # fmt: skip
        self._epoch, self._steps = -1, steps_per_epoch

    def stream(self, start: int, length: int, rank: int, world: int) -> Dataset[Sample]:
        """Of the samples ``start .. start + length * world - 1``, every ``world``-th, from ``rank``."""
        raise NotImplementedError(f"{type(self).__name__} must define stream")

    def held_out(self, rank: int, world: int) -> Dataset[Batch]:
        """Batches to validate on, every ``world``-th of all; as many in every process, some perhaps empty."""
        raise NotImplementedError(f"{type(self).__name__} must define held_out")

    def once(self) -> Iterable[Batch]:
        """Batches of all training samples, each once and as it is, for a model that looks at them at a stage.

        Raises:
            GeomoeError: data that have no end.
        """
        raise GeomoeError(f"{type(self).__name__} has no training samples to go over once")

    def samples(self, part: Split) -> Named:
        """The samples of a part, by name, as :meth:`named` gives them.

        Raises:
            GeomoeError: samples that cannot be read.
        """
        raise GeomoeError(f"{type(self).__name__} has no samples by name")

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands that a model learns from, in their order; empty where the data have none."""
        return ()

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Types of the files whose values are brought to 0 to 1 for it; empty where nobody asks."""
        return ()

    def describe(self, source: str = "") -> dict[str, Any]:
        """What a card says of the data; ``source`` where the data set does not know it."""
        raise NotImplementedError(f"{type(self).__name__} must define describe")

    def amount(self) -> str:
        """What there is to train and to validate on, in words; empty where a family does not say."""
        return ""

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
        """Samples of a part of the data at ``root``, as ``weights`` take them.

        Raises:
            GeomoeError: other data than these weights are for, or samples that cannot be read.
        """
        raise GeomoeError(f"{cls.__name__} has no samples to score by name")

    @property
    def inputs(self) -> str:
        """What a card says of how the model's inputs were made; empty where they are the images."""
        return ""

    @property
    def radiometry(self) -> str:
        """How source values become the model's, as of :class:`geomoe.models.weights.Card`."""
        return "unit"

    @property
    def recipe(self) -> dict[str, Any]:
        """What a card says of how samples are cut."""
        return {}

    @property
    def _share(self) -> tuple[int, int]:
        """Number of this process, and of all."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @property
    def samples_per_step(self) -> int:
        """Samples that one optimiser step learns from, over accumulated batches and all processes."""
        accumulated = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        return self.batch_size * accumulated * self._share[1]

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._epoch, self._steps = state_dict["epoch"], state_dict["steps"]

    def _steps_of(self, epoch: int) -> int:
        """How many optimiser steps an epoch has; of one that a checkpoint ended, as many as it had then."""
        if self.trainer is None:  # it is asked what it gives, and trains nothing
            return self.steps_per_epoch
        if epoch != self._epoch:
            self._epoch, self._steps = epoch, self.steps_per_epoch
            if self.trainer.max_steps > 0:
                # An epoch that the end of the run cuts short is whole by this: it is validated and written.
                self._steps = max(1, min(self._steps, self.trainer.max_steps - self.trainer.global_step))
        return self._steps

    def train_dataloader(self) -> DataLoader[Sample]:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        rank, world = self._share
        start = epoch * self.steps_per_epoch * self.samples_per_step
        stream = self.stream(start, self._steps_of(epoch) * self.samples_per_step // world, rank, world)
        return DataLoader(
            stream, self.batch_size, num_workers=self.workers, pin_memory=torch.cuda.is_available()
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.held_out(*self._share), batch_size=None)
