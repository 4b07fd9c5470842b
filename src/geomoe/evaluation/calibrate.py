"""What a model's router saw in training, learned and put on the card of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geomoe.data.images import find_images, read_image, sift, to_unit
from geomoe.data.split import hold_out
from geomoe.data.super_resolution.degradation import REAL, get_degradation
from geomoe.data.super_resolution.layouts import REAL_LAYOUTS, SPLIT_LAYOUTS, find_layout
from geomoe.data.super_resolution.mixed import mixed_pairs
from geomoe.data.super_resolution.pairs import PatchStream, Share, degrade
from geomoe.data.super_resolution.sources import Source
from geomoe.errors import GeomoeError
from geomoe.models import LoadedModel, load
from geomoe.models.reference import RoutingReference
from geomoe.models.weights import Card, check_target, save
from geomoe.moe.plan import LastSignals

__all__ = ["calibrate", "shown_rows"]

_IMAGES, _ROWS = 400, 500
"""So many are enough for the mean and the precision of a few dozen channels; neighbours are much alike."""
_FEW = 20_000
"""Rows in all, where there are few images: a cube is one."""
_HELD_OUT, _LEAST = 0.2, 20
"""Of a folder that is not split: the share that the threshold is found on, and the fewest images."""


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
    find = _samples
    if loaded.contract.gives("image"):
        find = _mixed if _is_mixed(loaded) else _images
    fit, held_out, read, words = find(root, loaded)
    total, done = len(fit) + len(held_out), 0

    def rows(cases: Sequence[_Case]) -> Iterator[Tensor]:
        nonlocal done
        for case in cases:
            yield shown_rows(loaded, *read(case, done), most=max(_ROWS, _FEW // len(cases)))
            done += 1
            if progress:
                progress(done, total)

    seen, judged = torch.cat(list(rows(fit))), torch.cat(list(rows(held_out)))
    reference = RoutingReference.learn(seen, judged, quantile, words)
    card = replace(loaded.card, reference=reference.for_card())
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


_Case = Path | int | Mapping[str, Tensor]
_Read = Callable[[Any, int], tuple[Tensor, *tuple[Tensor | None, ...]]]
_Cases = tuple[Sequence[_Case], Sequence[_Case], _Read, str]
"""What to learn from and what to find the threshold on; how the n-th is read; what that was, in words."""


def _samples(root: Path, model: LoadedModel) -> _Cases:
    """What was trained on, and kept to validate on, of a task whose samples are what they are."""
    from geomoe.tasks.families import family  # whose tasks want Lightning

    data = family(model.card.task).data
    fit, held = (
        [sample for _, sample in data.named(root, part, model).samples] for part in ("fit", "validation")
    )

    def read(case: Mapping[str, Tensor], number: int) -> tuple[Tensor, None, Tensor | None]:
        return to_unit(case["image"]), None, case.get("valid")

    return fit[:: -(-len(fit) // _IMAGES)], held, read, f"{len(held)} samples kept to validate on"


def _is_mixed(model: LoadedModel) -> bool:
    return "sources" in model.card.data


def _mixed(root: Path, model: LoadedModel) -> _Cases:
    """Patches as in training, and whole images that were kept to validate on; of the card's sources."""
    said = model.card.data
    try:
        sources = [Source.from_card(one) for one in said["sources"]]
        validation, forget = float(said["validation"]), float(said["forget"])
    except (KeyError, TypeError, ValueError) as error:
        raise GeomoeError(
            f"{model.name}: its card does not say how its sources were mixed: {error}"
        ) from error
    scale, bands, patch = model.contract.scale, model.contract.bands, model.card.recipe["patch_size"]
    fit, held_out = (
        mixed_pairs(sources, root, part, scale=scale, bands=bands, validation=validation, patch=patch)
        for part in ("fit", "validation")
    )
    stream = PatchStream(fit, patch, scale, seed=0, start=0, length=4 * _IMAGES, forget=forget)
    judged = Share(held_out, informed=True)

    def read(case: int, number: int) -> tuple[Tensor, Tensor]:
        if number < len(stream):
            sample = stream[case]
        else:
            sample = {name: values[0] for name, values in judged[case].items()}
        return sample["image"], sample["known"]

    held = range(0, len(judged), -(-len(judged) // _IMAGES))
    return range(len(stream)), held, read, _made_small(held, model.card.degradation)


def _images(root: Path, model: LoadedModel) -> _Cases:
    fit, held_out = _files(root, model)
    fit = fit[:: -(-len(fit) // _IMAGES)]
    bands, small = model.contract.bands, get_degradation(model.card.degradation)
    # All are looked at before the model sees the first.
    sift([*fit, *held_out], lambda path: len(read_image(path, bands)), False, lambda line: None)

    def read(path: Path, number: int) -> tuple[Tensor]:
        low, _ = degrade(read_image(path, bands), model.contract.scale, small.drawn(number))
        return (to_unit(low),)

    return fit, held_out, read, _made_small(held_out, small.name)


def _made_small(held_out: Sequence[_Case], how: str) -> str:
    return f"{len(held_out)} images held out of training, downsampled by {how}"


def _files(root: Path, model: LoadedModel) -> tuple[list[Path], list[Path]]:
    if model.card.degradation == REAL:
        raise GeomoeError(
            f"{model.name} was trained on measured pairs, for which there is no calibration yet"
        )
    layout = find_layout(root)
    if layout in REAL_LAYOUTS:
        raise GeomoeError(f"{root} holds measured pairs ({layout}), {model.name} was trained on made ones")
    files = SPLIT_LAYOUTS.get(layout)
    if files is not None:
        return files(root, "fit"), files(root, "validation")
    found = find_images(root)
    if len(found) < _LEAST:
        raise GeomoeError(f"{root} holds {len(found)} images; calibration needs {_LEAST} or more")
    return hold_out(found, _HELD_OUT, "images")
