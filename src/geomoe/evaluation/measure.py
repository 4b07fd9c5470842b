"""What an evaluation found, on the card of the weights: by this `geomoe upscale` chooses and warns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from geomoe.errors import GeomoeError
from geomoe.evaluation.evaluation import Evaluation
from geomoe.evaluation.scores import rounded
from geomoe.models.measured import Measured
from geomoe.models.weights import Card, LoadedModel, save
from geomoe.tasks.commit import commit

__all__ = ["measured", "noted", "write_measured"]


def measured(
    found: Evaluation, *, name: str = "", sensor: str | None = None, gsd: float | None = None
) -> Measured:
    """An evaluation as a card holds it.

    Args:
        found: on samples that the weights were neither trained nor chosen on.
        name: what the samples are called; as in ``found`` if empty.
        sensor: that took them; as in ``found`` if None.
        gsd: their ground sampling distance, metres; as in ``found`` if None.

    Raises:
        GeomoeError: values that cannot be.
    """
    if gsd is not None and not 0 < gsd < float("inf"):
        raise GeomoeError(f"a ground sampling distance of {gsd:g} m was given; expected more than 0")
    return Measured(
        data=name or found.data,
        sensor=sensor or found.sensor,
        gsd=gsd or found.gsd,
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
