"""What becomes of a model's output, by its kind: the first file of a job.

A kind is a module of this folder with a function ``writer``, and its name in `WRITERS`. Importing this is
cheap: a module is imported when a model gives its kind.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from geomoe.errors import GeomoeError

if TYPE_CHECKING:
    from geomoe.pipeline.runner import Predictor
    from geomoe.pipeline.writers.base import Writer

__all__ = ["WRITERS", "writer_of"]

WRITERS = ("image", "classes")
"""Kinds of :class:`geomoe.models.contract.Output` that a scene is made into, by modules of their names."""


def writer_of(model: Predictor, *, fallback: bool = False, conserve: bool = False) -> Writer:
    """The writer of what a model gives.

    Args:
        model: with one output.
        fallback: as of a `Request`.
        conserve: as of a `Request`.

    Raises:
        GeomoeError: a model that makes nothing of a scene, or options that its kind of output does not have.
    """
    outputs = list(model.contract.outputs.values())
    if len(outputs) != 1 or outputs[0].kind not in WRITERS:
        gives = ", ".join(output.describe() for output in outputs)
        raise GeomoeError(f"{model.name} gives {gives}, no map of a scene; write a table, .csv")
    made: Writer = import_module(f"{__name__}.{outputs[0].kind}").writer(model, fallback, conserve)
    return made
