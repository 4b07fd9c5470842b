"""Images whose truth is known, by name: downsampled, or measured by two sensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from geomoe.data.datasets import DATA_SETS
from geomoe.data.images import find_images, read_image, sift, to_unit
from geomoe.data.sample import Sample
from geomoe.data.split import Split
from geomoe.data.super_resolution.degradation import REAL, Degrader, get_degradation
from geomoe.data.super_resolution.layouts import (
    REAL_LAYOUTS,
    REFLECTANCE,
    SPLIT_LAYOUTS,
    VALUES,
    find_layout,
    real_pairs,
)
from geomoe.data.super_resolution.pairs import degrade
from geomoe.errors import GeomoeError
from geomoe.layers.super_resolution.known import Known
from geomoe.models.weights import LoadedModel
from geomoe.tasks.stream import Lazy, Named

__all__ = ["named_images"]


def named_images(
    root: Path,
    part: Split,
    weights: LoadedModel,
    degradation: str,
    skip: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Named:
    """Samples with ``image`` and ``target``, and ``known`` where a model is informed; read one by one.

    A folder of images without a published split is every part.

    Args:
        root: of the images.
        part: of a data set with a published split.
        weights: whose scale, bands and range of values the samples have.
        degradation: by which images are downsampled, each always alike; or ``real``.
        skip: whether images that cannot be read are left out.
        say: called with a line about them.

    Raises:
        GeomoeError: nothing to score, images that cannot be read, or an unknown degradation.
    """
    layout = find_layout(root)
    real = degradation == REAL
    if real != (layout in REAL_LAYOUTS):
        found = (
            "pairs that were measured" if layout in REAL_LAYOUTS else "images, not pairs that were measured"
        )
        raise GeomoeError(
            f"{root} holds {found} ({layout}), and degradation {degradation} is not for them; {REAL} is for "
            f"{', '.join(REAL_LAYOUTS)}"
        )
    samples = (
        _measured(root, part, layout, weights, skip, say)
        if real
        else _made(root, part, layout, weights, get_degradation(degradation), skip, say)
    )
    known = DATA_SETS.get(layout)
    if known is None:
        return Named(root.resolve().name, samples)
    return Named(known.name, samples, known.sensor, known.gsd)


def _made(
    root: Path, part: Split, layout: str, weights: LoadedModel, degradation: Degrader, skip: bool,
    say: Callable[[str], None],
) -> Lazy:  # fmt: skip
    bands, scale = weights.contract.bands, weights.contract.scale
    files = SPLIT_LAYOUTS.get(layout)
    paths = find_images(root) if files is None else files(root, part)
    data_set = DATA_SETS.get(layout)
    of_all = Known() if data_set is None else Known(data_set.sensor, data_set.gsd)
    # All are looked at before the first is scored: an hour may lie between.
    usable = {path for path, _ in sift(paths, lambda path: len(read_image(path, bands)), skip, say)}

    def read(number: int) -> Sample:
        drawn = degradation.drawn(number)
        low, high = degrade(read_image(paths[number], bands), scale, drawn)
        sample = {"image": to_unit(low), "target": to_unit(high)}
        if weights.contract.informed:
            sample["known"] = torch.tensor(drawn.known(of_all).encoded())
        return sample

    names = [path.relative_to(root).as_posix() for path in paths]
    return Lazy(names, read, [number for number, path in enumerate(paths) if path in usable])


def _measured(
    root: Path, part: Split, layout: str, weights: LoadedModel, skip: bool, say: Callable[[str], None]
) -> Lazy:
    if part == "train":
        raise GeomoeError("measured pairs are scored on the split fit, validation or test")
    stretch = weights.card.data.get(VALUES) != REFLECTANCE
    scale, bands = weights.contract.scale, weights.contract.bands
    pairs = real_pairs(layout, root, part, scale=scale, bands=bands, stretch=stretch, skip=skip, say=say)

    def read(number: int) -> Sample:
        low, high = pairs[number]
        sample = {"image": low, "target": high}
        if weights.contract.informed:
            sample["known"] = torch.tensor(Known().encoded())
        return sample

    return Lazy([f"pair {number}" for number in range(len(pairs))], read)
