"""Scores on a card: the last step before weights are given away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from geomoe.errors import GeomoeError
from geomoe.evaluation.evaluators import evaluator
from geomoe.evaluation.measure import measured, noted
from geomoe.files import overlap
from geomoe.models.weights import Card, check_target, half_state, load, save

__all__ = ["export"]


def export(
    source: Path,
    target: Path,
    root: Path,
    *,
    protocol: str | None = None,
    overwrite: bool = False,
    half: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Card:
    """Score trained weights once on the test split and write them, with the scores on their card.

    Args:
        source: weights that ``geomoe fit`` wrote.
        target: file to write, ``.safetensors``.
        root: the test samples, as for :func:`geomoe.evaluate`; inputs are made of them as in training, or by
            ``bilinear`` where that was in several ways.
        protocol: of the scores, of a task that has several.
        overwrite: whether ``target`` may exist.
        half: whether weights are stored in float16; what is scored is what is stored.
        progress: called with samples done and samples in all.

    Raises:
        GeomoeError: ``target`` exists or cannot be written, or nothing can be scored.
    """
    check_target(target, overwrite=overwrite)
    if overlap([target], [source]):
        raise GeomoeError(f"{target} is what training wrote; write to another file")
    loaded = load(str(source))
    card = loaded.card
    if half:
        loaded.model.load_state_dict(half_state(loaded.model))
        # What was measured of the weights is not true of rounded ones.
        card = replace(card, recipe={**card.recipe, "stored": "float16"}, bfloat16={}, measured=[])
    its = evaluator(card.task)
    options = its.as_trained(loaded) | ({} if protocol is None else {"protocol": protocol})
    found = its.evaluate(loaded, root, progress=progress, **options)
    one = measured(found)
    scores = {
        "scored": found.scored,
        **one.scores,
        "baseline": one.baseline,
        "gain": one.gain,
        "validation": loaded.card.scores,
    }
    return save(target, loaded.model, noted(replace(card, protocol=one.protocol, scores=scores), [one]), half)
