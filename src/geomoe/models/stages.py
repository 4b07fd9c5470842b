"""Stages of a training: what of a model learns when, and by which losses.

A model that is trained in stages has ``stages``, a sequence of :class:`Stage`, as an attribute or property.
It may have ``begin(stage, batches)`` besides, which is called once at the beginning of each stage, in
evaluation and without gradients: ``stage`` is its name, ``batches`` an iterator over all training samples,
each once, that reads nothing until it is gone through: of each batch the image, what else the model is given
by name, and the truth. What it finds goes into buffers, which checkpoints and averaged weights hold like
parameters.

Any model may have ``progress(share)``, which is called before each batch with the share of the stage, or of a
training without stages, that is done: 0 at first, below 1 always. A loss that is annealed asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Shown", "Stage", "stages_of", "train_parts"]

Shown = tuple[Tensor, Mapping[str, Tensor], Tensor]
"""Of a batch: image, what else the model is given by name, truth."""


@dataclass(frozen=True)
class Stage:
    """A part of a training.

    Attributes:
        name: of the stage.
        share: of the steps, beside the shares of the other stages; above 0.
        trains: names of the modules, or of parameters, that learn; all if there are none. A parameter that
            the model itself keeps from learning never does.
        losses: weights by name; None for those of the recipe.
        rate: over the learning rate of the recipe; above 0.

    Raises:
        ValueError: a share or a rate that is not above 0.
    """

    name: str
    share: float
    trains: tuple[str, ...] = ()
    losses: Mapping[str, float] | None = None
    rate: float = 1.0

    def __post_init__(self) -> None:
        for name in ("share", "rate"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise ValueError(f"stage {self.name}: {name}={value}: expected a number above 0")


def stages_of(model: nn.Module, given: Iterable[Stage] | None = None) -> tuple[Stage, ...]:
    """The stages of a model, or those ``given`` in their place; empty where it is trained in one.

    Raises:
        ValueError: names that come twice, parts that the model does not have.
    """
    stages = tuple(getattr(model, "stages", ()) if given is None else given)
    if len({stage.name for stage in stages}) < len(stages):
        raise ValueError(f"stages: {', '.join(stage.name for stage in stages)}: expected each name once")
    for stage in stages:
        for part in stage.trains:
            if not any(_inside(name, part) for name, _ in model.named_parameters()):
                raise ValueError(
                    f"stage {stage.name}: {type(model).__name__} has nothing to learn in {part!r}"
                )
    return stages


def train_parts(model: nn.Module, parts: Iterable[str], learning: Iterable[str]) -> None:
    """Let of the parameters ``learning`` those learn that are of ``parts``, or all if there are none.

    Modules of which nothing learns are in evaluation: their statistics and their chance rest, too.
    """
    chosen, may = list(parts), set(learning)
    for name, parameter in model.named_parameters():
        learns = name in may and (not chosen or any(_inside(name, part) for part in chosen))
        parameter.requires_grad_(learns)
        if not learns:
            parameter.grad = None  # else an optimiser would go on by its last one
    for module, training in _modes(model, True):
        module.training = training


def _inside(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _modes(module: nn.Module, above: bool) -> Iterator[tuple[nn.Module, bool]]:
    """What has no parameters of its own, such as dropout, goes with what it is part of."""
    own = [p.requires_grad for p in module.parameters()]
    training = above and (not own or any(own))
    yield module, training
    for child in module.children():
        yield from _modes(child, training)
