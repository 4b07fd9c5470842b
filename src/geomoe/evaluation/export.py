"""Scores on a card: the last step before weights are given away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from geomoe.data.degradation import MIXED
from geomoe.errors import GeomoeError
from geomoe.evaluation.evaluate import evaluate
from geomoe.evaluation.measure import measured, noted
from geomoe.evaluation.scores import rounded
from geomoe.files import overlap
from geomoe.models.weights import Card, check_target, half_state, load, save

__all__ = ["export"]


def export(
    source: Path,
    target: Path,
    root: Path,
    *,
    protocol: str = "mfg_hmoe",
    overwrite: bool = False,
    half: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Card:
    """Score trained weights once on the test split and write them, with the scores on their card.

    Args:
        source: weights that ``geomoe fit`` wrote.
        target: file to write, ``.safetensors``.
        root: the test images, as for :func:`geomoe.evaluate`; inputs are made as in training, or by
            ``bilinear`` where that was in several ways.
        protocol: of the scores.
        overwrite: whether ``target`` may exist.
        half: whether weights are stored in float16; what is scored is what is stored.
        progress: called with images done and images in all.

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
        card = replace(card, recipe={**card.recipe, "stored": "float16"}, bfloat16={})
    made = "bilinear" if card.degradation == MIXED else card.degradation
    evaluation = evaluate(loaded, root, protocol=protocol, degradation=made, progress=progress)
    found, one = evaluation.overall, measured(evaluation, root)
    scores = {
        "scored": evaluation.scored,
        **rounded(found.values),
        "baseline": rounded(found.baseline),
        "gain": one.gain,
        "validation": loaded.card.scores,
    }
    # What was measured of weights before they were rounded was not measured of these.
    card = replace(card, protocol=protocol, scores=scores, measured=[] if half else card.measured)
    return save(target, loaded.model, noted(card, [one]), half)
