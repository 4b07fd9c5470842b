"""Scoring weights of any task on samples whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from geomoe.data.split import Split
from geomoe.evaluation.evaluation import Evaluation
from geomoe.evaluation.evaluators import evaluator
from geomoe.models import LoadedModel
from geomoe.models.precision import Precision

__all__ = ["evaluate"]


def evaluate(
    model: LoadedModel,
    root: str | Path,
    *,
    split: Split = "test",
    device: str = "auto",
    precision: Precision = "float32",
    skip_corrupt: bool = False,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Evaluation:
    """Compare what a model says of samples with what they are, beside what needs no learning.

    Args:
        model: from :func:`geomoe.load`; its card names the task.
        root: a folder of the data set that the weights are for; of super-resolution any images.
        split: of the data.
        device: of the model.
        precision: that the model computes in. In bfloat16 it computes in float32 too, for what that costs.
        skip_corrupt: whether samples that cannot be read are left out, and reported.
        progress: called with samples done and samples in all.
        say: called with a line that says what is left out.
        options: of the task; those of super-resolution are ``protocol``, ``degradation``, ``metrics`` and
            ``conserve``, see :func:`geomoe.evaluation.super_resolution.evaluate.evaluate`.

    Raises:
        GeomoeError: nothing to score, samples that cannot be read, classes that the model does not know, or
            options that the task does not have.
    """
    return evaluator(model.card.task).evaluate(
        model, Path(root), split=split, device=device, precision=precision, skip_corrupt=skip_corrupt,
        progress=progress, say=say, **options,
    )  # fmt: skip
