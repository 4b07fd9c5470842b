"""What a model's router saw in training, learned and put on the card of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from geomoe.data.images import to_unit
from geomoe.errors import GeomoeError
from geomoe.evaluation.drift import learn_drift
from geomoe.evaluation.evaluators import Samples, evaluator
from geomoe.models import LoadedModel, load
from geomoe.models.reference import RoutingReference
from geomoe.models.weights import Card, check_target, save
from geomoe.moe.plan import LastSignals

__all__ = ["calibrate", "shown_rows"]

_IMAGES, _ROWS = 400, 500
"""So many are enough for the mean and the precision of a few dozen channels; neighbours are much alike."""
_FEW = 20_000
"""Rows in all, where there are few images: a cube is one."""


def calibrate(
    source: Path,
    target: Path,
    root: Path,
    *,
    quantile: float = 0.99,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Card:
    """Write weights anew with a routing reference on their card; the tensors, and so the hash, stay.

    The mean and the precision are of images that the model was trained on, the threshold of images of the
    same kind that were held out, as small as the card says that training made them; of other tasks samples
    as they are.

    Args:
        source: weights, ``.safetensors``.
        target: file to write, ``.safetensors``; may be ``source`` if ``overwrite``.
        root: the training images, as for ``geomoe fit``.
        quantile: the share of pixels held out that are to count as like training.
        overwrite: whether ``target`` may exist.
        progress: called with images done and images in all.

    Raises:
        GeomoeError: bad weights, too few images, a model that routes nothing, or ``target`` cannot be
            written.
    """
    check_target(target, overwrite=overwrite)
    if not 0 < quantile < 1:
        raise GeomoeError(f"a quantile of {quantile:g} was given; expected one above 0 and below 1")
    if not source.is_file():
        raise GeomoeError(f"{source} does not exist; give a .safetensors file, such as 'geomoe fit' writes")
    loaded = load(str(source))
    fit, held_out, words = evaluator(loaded.card.task).calibration(loaded, root, _IMAGES)
    total, done = len(fit) + len(held_out), 0

    def rows(samples: Samples) -> Iterator[Tensor]:
        nonlocal done
        for _, sample in samples:
            shown = (sample.get(key) for key in ("known", "valid"))
            most = max(_ROWS, _FEW // len(samples))
            yield shown_rows(loaded, to_unit(sample["image"]), *shown, most=most)
            done += 1
            if progress:
                progress(done, total)

    seen, judged = torch.cat(list(rows(fit))), torch.cat(list(rows(held_out)))
    reference = RoutingReference.learn(seen, judged, quantile, words)
    drift = learn_drift(loaded, held_out, words)
    card = replace(
        loaded.card, reference=reference.for_card(), drift={} if drift is None else drift.for_card()
    )
    half = card.recipe.get("stored") == "float16"
    return save(target, loaded.model, card, half)


def shown_rows(
    model: LoadedModel,
    low: Tensor,
    known: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    most: int | None = None,
) -> Tensor:
    """What the last router of a model is shown of an image ``[C, h, w]`` in [0, 1]: rows ``[N, C]``.

    Args:
        model: that routes.
        low: the image.
        known: ``[Known.WIDTH]``, what an informed model is told of it.
        valid: ``[h, w]`` bool, the pixels that there are, for a model that is told; the others give no row.
        most: take so many rows, drawn alike every time; all if ``None``.

    Raises:
        GeomoeError: if the model routes nothing.
    """
    told = {"known": known[None]} if known is not None and model.contract.informed else {}
    if valid is not None:
        told["valid"] = valid[None]
    with torch.inference_mode():
        model.model.eval()(low[None], trace=(trace := LastSignals()), **told)
    rows = trace.signals
    if rows is None:
        raise GeomoeError(f"{model.name} routes nothing, so there is nothing to compare")
    if (there := trace[-1].valid) is not None:
        rows = rows[there]
    if most is None or len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:most]]
