"""What an evaluation found, on the card of the weights: by this `geomoe upscale` chooses and warns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from geomoe.data.datasets import DATA_SETS
from geomoe.data.super_resolution.layouts import find_layout
from geomoe.errors import GeomoeError
from geomoe.evaluation.scores import rounded
from geomoe.evaluation.super_resolution.by_source import SourceScores
from geomoe.evaluation.super_resolution.evaluate import Evaluation, middle
from geomoe.models.measured import Measured
from geomoe.models.weights import Card, LoadedModel, save
from geomoe.tasks.commit import commit

if TYPE_CHECKING:
    from geomoe.evaluation.samples import SampleEvaluation  # whose tasks want Lightning

__all__ = ["measured", "measured_by_source", "measured_samples", "noted", "write_measured"]


def measured(
    found: Evaluation, root: Path, *, name: str = "", sensor: str | None = None, gsd: float | None = None
) -> Measured:
    """An evaluation as a card holds it.

    Args:
        found: on images that the weights were neither trained nor chosen on.
        root: what was scored.
        name: what the images are called; that of a known data set, or of the folder, if empty.
        sensor: that took them; of a known data set its own.
        gsd: ground sampling distance of the images, metres; of a known data set its own.

    Raises:
        GeomoeError: values that cannot be.
    """
    if gsd is not None and not 0 < gsd < float("inf"):
        raise GeomoeError(f"a ground sampling distance of {gsd:g} m was given; expected more than 0")
    known = DATA_SETS.get(find_layout(root))
    return Measured(
        data=name or (known.title if known else root.resolve().name),
        sensor=sensor or (known.sensor if known else None),
        gsd=gsd or (known.gsd if known else None),
        degradation=found.degradation,
        noise=found.noise,
        protocol=found.protocol,
        images=found.overall.items,
        scores=rounded(found.overall.values),
        baseline=rounded(found.overall.baseline),
        date=datetime.now(UTC).date().isoformat(),
        commit=commit(),
        ranks=found.ranks,
    )


def measured_samples(found: SampleEvaluation) -> Measured:
    """An evaluation of whole samples, as a card holds it."""
    return Measured(
        data=found.data,
        sensor=found.sensor,
        gsd=found.gsd,
        degradation="",
        noise=None,
        protocol=found.task,
        images=found.overall.items,
        scores=rounded(found.overall.values),
        baseline=rounded(found.overall.baseline),
        date=datetime.now(UTC).date().isoformat(),
        commit=commit(),
        ranks=found.ranks,
    )


def measured_by_source(found: SourceScores, protocol: str) -> Measured:
    """Scores on what is held out of a source, as a card holds them."""
    overall = found.overall
    return Measured(
        data=found.source,
        sensor=found.sensor,
        gsd=found.gsd,
        degradation=found.degradation,
        noise=middle(list(found.noise.values())),
        protocol=protocol,
        images=overall.items,
        scores=rounded(overall.values),
        baseline=rounded(overall.baseline),
        date=datetime.now(UTC).date().isoformat(),
        commit=commit(),
        ranks=found.ranks,
    )


def noted(card: Card, found: Sequence[Measured]) -> Card:
    """The card with evaluations, each in place of an earlier one of the same images, inputs and protocol."""
    kept = [one for one in card.evaluations if not any(map(one.same_case, found))]
    return replace(card, measured=[one.for_card() for one in (*kept, *found)])


def write_measured(model: LoadedModel, target: Path, found: Sequence[Measured]) -> Card:
    """Write weights anew with evaluations on their card; the tensors, and so the hash, stay.

    Args:
        model: that was evaluated.
        target: file to write, ``.safetensors``; see :func:`geomoe.models.weights.check_target`.
        found: of it.

    Raises:
        GeomoeError: ``target`` cannot be written.
    """
    half = model.card.recipe.get("stored") == "float16"
    return save(target, model.model, noted(model.card, found), half)
