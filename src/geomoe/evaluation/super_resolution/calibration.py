"""What a router is shown in training of super-resolution, and of what was kept from it."""

from __future__ import annotations

from pathlib import Path

from geomoe.data.images import find_images, read_image, sift
from geomoe.data.sample import Lazy, Sample
from geomoe.data.split import hold_out
from geomoe.data.super_resolution.degradation import REAL, get_degradation
from geomoe.data.super_resolution.layouts import REAL_LAYOUTS, SPLIT_LAYOUTS, find_layout
from geomoe.data.super_resolution.mixed import mixed_pairs
from geomoe.data.super_resolution.pairs import PatchStream, Share, degrade
from geomoe.data.super_resolution.sources import Source
from geomoe.errors import GeomoeError
from geomoe.models import LoadedModel

__all__ = ["calibration_samples"]

_HELD_OUT, _LEAST = 0.2, 20
"""Of a folder that is not split: the share that the threshold is found on, and the fewest images."""


def calibration_samples(model: LoadedModel, root: Path, most: int) -> tuple[Lazy, Lazy, str]:
    """As of :meth:`geomoe.evaluation.evaluators.Evaluator.calibration`; inputs as small as in training."""
    return (_mixed if "sources" in model.card.data else _images)(model, root, most)


def _mixed(model: LoadedModel, root: Path, most: int) -> tuple[Lazy, Lazy, str]:
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
    stream = PatchStream(fit, patch, scale, seed=0, start=0, length=4 * most, forget=forget)
    judged = Share(held_out, informed=True)

    def whole(place: int) -> Sample:
        return {name: values[0] for name, values in judged[place].items()}

    kept = Lazy(lambda place: ("", whole(place)), range(0, len(judged), -(-len(judged) // most)))
    patches = Lazy(lambda place: ("", stream[place]), range(len(stream)))
    return patches, kept, _words(kept, model.card.degradation)


def _images(model: LoadedModel, root: Path, most: int) -> tuple[Lazy, Lazy, str]:
    fit, held_out = _files(root, model)
    fit = fit[:: -(-len(fit) // most)]
    bands, small = model.contract.bands, get_degradation(model.card.degradation)
    paths = [*fit, *held_out]
    # All are looked at before the model sees the first.
    sift(paths, lambda path: len(read_image(path, bands)), False, lambda line: None)

    def read(place: int) -> tuple[str, Sample]:
        low, _ = degrade(read_image(paths[place], bands), model.contract.scale, small.drawn(place))
        return paths[place].name, {"image": low}

    samples = Lazy(read, range(len(paths)))
    kept = samples[len(fit) :]
    return samples[: len(fit)], kept, _words(kept, small.name)


def _words(held_out: Lazy, how: str) -> str:
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
