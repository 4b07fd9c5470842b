"""Scores on a card: the last step before weights are given away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from geomoe.data.super_resolution.degradation import MIXED
from geomoe.errors import GeomoeError
from geomoe.evaluation.measure import measured, measured_samples, noted
from geomoe.evaluation.super_resolution.evaluate import evaluate
from geomoe.files import overlap
from geomoe.models.measured import Measured
from geomoe.models.weights import Card, LoadedModel, check_target, half_state, load, save

__all__ = ["export"]

Progress = Callable[[int, int], None]


def export(
    source: Path,
    target: Path,
    root: Path,
    *,
    protocol: str | None = None,
    overwrite: bool = False,
    half: bool = False,
    progress: Progress | None = None,
) -> Card:
    """Score trained weights once on the test split and write them, with the scores on their card.

    Args:
        source: weights that ``geomoe fit`` wrote.
        target: file to write, ``.safetensors``.
        root: the test images, as for :func:`geomoe.evaluate`, whose inputs are made as in training, or by
            ``bilinear`` where that was in several ways; of other tasks the samples.
        protocol: of the scores of images, ``mfg_hmoe`` by default; other tasks have one alone.
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
    scored, one = (_images if loaded.contract.gives("image") else _samples)(loaded, root, protocol, progress)
    scores = {
        "scored": scored,
        **one.scores,
        "baseline": one.baseline,
        "gain": one.gain,
        "validation": loaded.card.scores,
    }
    # What was measured of weights before they were rounded was not measured of these.
    card = replace(card, protocol=one.protocol, scores=scores, measured=[] if half else card.measured)
    return save(target, loaded.model, noted(card, [one]), half)


def _images(
    model: LoadedModel, root: Path, protocol: str | None, progress: Progress | None
) -> tuple[str, Measured]:
    """What was scored, and what was found of it."""
    made = "bilinear" if model.card.degradation == MIXED else model.card.degradation
    rules = "mfg_hmoe" if protocol is None else protocol
    found = evaluate(model, root, protocol=rules, degradation=made, progress=progress)
    return found.scored, measured(found, root)


def _samples(
    model: LoadedModel, root: Path, protocol: str | None, progress: Progress | None
) -> tuple[str, Measured]:
    """The same of weights that see whole samples."""
    from geomoe.evaluation.samples import evaluate_samples  # whose tasks want Lightning

    if protocol is not None:
        raise GeomoeError(
            f"protocol {protocol} compares images, which {model.name} does not give; leave it out"
        )
    found = evaluate_samples(model, root, progress=progress)
    return found.scored, measured_samples(found)
