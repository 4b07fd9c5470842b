"""Where a training is in the stages of its model."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from geomoe.errors import GeomoeError
from geomoe.models.stages import Shown, Stage, stages_of, train_parts

__all__ = ["Stages", "read_stages"]


def read_stages(given: Sequence[Mapping[str, Any]] | None, model: nn.Module) -> tuple[Stage, ...]:
    """Stages that a configuration writes, or else a model's own.

    Raises:
        GeomoeError: what is no stage, or none of this model.
    """
    try:
        if given is None:
            return stages_of(model)
        if text := [one["trains"] for one in given if isinstance(one.get("trains"), str)]:
            raise ValueError(f"trains={text[0]!r}: expected a list of parts, as [{text[0]}]")
        return stages_of(model, [Stage(**{**one, "trains": tuple(one.get("trains", ()))}) for one in given])
    except (TypeError, ValueError) as error:
        raise GeomoeError(f"model.stages: {str(error).removeprefix('Stage.__init__() ')}") from error


class Stages:
    """The steps of each stage, and the model made ready for the one that a step is of.

    Everything follows from the step and from how many stages have begun, so that a resumed training goes on
    where it was.

    Args:
        model: in training.
        stages: of it; may be empty, for a training that is one whole.
    """

    def __init__(self, model: nn.Module, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self.begun = 0
        """How many have begun."""
        self._model = model
        self._learning = [name for name, p in model.named_parameters() if p.requires_grad]
        self._ends: list[int] = []
        self._at: int | None = None

    def share_out(self, steps: int) -> None:
        """Tell each stage its part of a run of so many steps; one at least.

        Raises:
            GeomoeError: fewer steps than stages.
        """
        if len(self.stages) > steps:
            raise GeomoeError(
                f"{steps} steps are fewer than the {len(self.stages)} stages; give a larger "
                "--trainer.max_steps"
            )
        shares = [stage.share for stage in self.stages] or [1.0]
        self._ends = []
        for place, until in enumerate(accumulate(shares), 1):
            least, most = [0, *self._ends][-1] + 1, steps - len(shares) + place
            self._ends.append(min(max(round(until / sum(shares) * steps), least), most))

    def limits(self, step: int) -> tuple[int, int]:
        """First step of the stage that ``step`` is of, and the first one after it."""
        place = self._place(step)
        return ([0, *self._ends][place], self._ends[place])

    def rate(self, step: int) -> float:
        """By what the learning rate is multiplied in the stage that ``step`` is of."""
        return self.stages[self._place(step)].rate if self.stages else 1.0

    def share(self, step: int) -> float:
        """How much of the stage that ``step`` is of is over before it, 0 to 1."""
        start, end = self.limits(step)
        return (step - start) / (end - start)

    def last(self, step: int) -> bool:
        """Whether ``step`` is of the last stage."""
        return self._place(step) == len(self._ends) - 1

    def _place(self, step: int) -> int:
        return min(bisect_right(self._ends, step), len(self._ends) - 1)

    def enter(self, step: int, batches: Callable[[], Iterator[Shown]]) -> Stage | None:
        """Make the model ready for a step; gives the stage where it is another than the step's before.

        Args:
            step: of the optimiser, from 0.
            batches: all training samples, for the model's ``begin``.
        """
        place = self._place(step)
        if not self.stages or place == self._at:
            return None
        # A run that is resumed with fewer steps may have passed the beginning of a stage.
        while self.begun <= place:
            _begin(self._model, self.stages[self.begun].name, batches())
            self.begun += 1
        self._at = place
        train_parts(self._model, self.stages[place].trains, self._learning)
        return self.stages[place]


def _begin(model: nn.Module, stage: str, batches: Iterator[Shown]) -> None:
    if begin := getattr(model, "begin", None):
        model.eval()
        with torch.no_grad():
            begin(stage, batches)
