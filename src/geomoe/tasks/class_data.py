"""What data modules have in common whose samples have classes, whole images or their pixels."""

from __future__ import annotations

from geomoe.tasks.stream import StreamData

__all__ = ["ClassData"]


class ClassData(StreamData):
    """Data with classes; a family defines :attr:`statistics` and :attr:`counts`."""

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each band over the training part, as models see it."""
        raise NotImplementedError(f"{type(self).__name__} must define statistics")

    @property
    def counts(self) -> dict[str, int]:
        """How many training samples, or pixels, each class has, by name."""
        raise NotImplementedError(f"{type(self).__name__} must define counts")

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each band."""
        return self.statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """The same of the standard deviation."""
        return self.statistics[1]

    @property
    def shares(self) -> tuple[float, ...]:
        """The counts alone."""
        return tuple(map(float, self.counts.values()))
