"""Scoring a model on images whose truth is known, beside bicubic upsampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomoe.data.datasets import DATA_SETS
from geomoe.data.images import find_images, read_image, sift, to_unit
from geomoe.data.split import Split
from geomoe.data.super_resolution.degradation import REAL, Degrader, get_degradation, interpolated
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
from geomoe.evaluation.scores import ItemScores, Scores, mean_scores
from geomoe.evaluation.super_resolution.further import check_metrics, score_further
from geomoe.evaluation.super_resolution.precision import Loss, loss_of
from geomoe.layers.super_resolution.conserve import conserve as conserved
from geomoe.metrics.protocol import get_protocol
from geomoe.models import LoadedModel, ModelContract
from geomoe.models.device import pick_device
from geomoe.models.precision import Precision, computing_in, pick_precision
from geomoe.noise import image_noise
from geomoe.printable import counted

__all__ = ["Evaluation", "evaluate", "middle"]


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found, with everything that is needed to repeat it.

    ``by_item`` and ``baseline_by_item`` go by an image's path below the folder that was scored; ``loss`` is
    what ``precision`` costs against float32, where it is another. ``noise`` is that of the inputs, as
    :func:`geomoe.noise.image_noise` estimates it in units of [0, 1]: its quartiles over the images;
    ``None`` where no image tells.
    """

    weights: str
    hash: str
    scale: int
    scored: str
    protocol: str
    degradation: str
    precision: Precision
    loss: Loss | None
    conserve: bool
    overall: Scores
    by_class: dict[str, Scores]
    by_item: ItemScores
    baseline_by_item: ItemScores
    noise: tuple[float, float] | None = None

    @property
    def ranks(self) -> str:
        """The metric by which models are compared."""
        return get_protocol(self.protocol).ranks

    @property
    def base(self) -> str:
        """What needs no learning, with which they are compared."""
        return get_protocol(self.protocol).base

    def as_dict(self) -> dict[str, Any]:
        """For JSON; gains included."""
        return {
            **asdict(self),
            "overall": self.overall.as_dict(self.ranks),
            "by_class": {name: s.as_dict(self.ranks) for name, s in self.by_class.items()},
        }


_Cases = tuple[int, str, Iterator[tuple[str, str, Tensor, Tensor, Degrader | None]]]
"""How many there are, what they are; of each its class, name, both images and what made the one small."""


def _made(
    root: Path,
    contract: ModelContract,
    degradation: Degrader,
    split: Split,
    skip: bool,
    say: Callable[[str], None],
) -> _Cases:
    layout = find_layout(root)
    if layout in REAL_LAYOUTS:
        raise GeomoeError(
            f"{root} holds pairs that were measured ({layout}), of which both images, and those to train on, "
            "would be downsampled; score them with degradation 'real', or give the folder of one resolution"
        )
    files = SPLIT_LAYOUTS.get(layout)
    paths = find_images(root) if files is None else files(root, split)
    # All are looked at before the first is scored: an hour may lie between.
    usable = {path for path, _ in sift(paths, lambda path: len(read_image(path, contract.bands)), skip, say)}

    def cases() -> Iterator[tuple[str, str, Tensor, Tensor, Degrader]]:
        for i, path in enumerate(paths):
            if path not in usable:
                continue
            image = read_image(path, contract.bands)
            drawn = degradation.drawn(i)
            low, high = degrade(image, contract.scale, drawn)
            # Rasters of other types than uint8 are never rounded.
            made = drawn if image.dtype == torch.uint8 else drawn.unrounded()
            yield path.parent.name, path.relative_to(root).as_posix(), low, high, made

    n, left = len(usable), len(paths) - len(usable)
    if files:
        what = f"{counted(n, f'{split} image')} of {DATA_SETS[layout].title}"
    else:
        what = f"all {n} images of a folder" if n != 1 else "the one image of a folder"
    return n, f"{what}, without {left} that cannot be read" if left else what, cases()


def _measured(
    root: Path, contract: ModelContract, stretch: bool, skip: bool, say: Callable[[str], None]
) -> _Cases:
    layout = find_layout(root)
    if layout not in REAL_LAYOUTS:
        raise GeomoeError(
            f"{root} holds no pairs that were measured ({', '.join(REAL_LAYOUTS)}), which degradation 'real' "
            "scores; give their folder, or the name of a degradation"
        )
    pairs = real_pairs(
        layout, root, "test", scale=contract.scale, bands=contract.bands, stretch=stretch, skip=skip, say=say
    )
    cases = ((layout, f"pair {i}", *pairs[i], None) for i in range(len(pairs)))
    return len(pairs), f"{len(pairs)} measured pairs of layout {layout}", cases


def evaluate(
    model: LoadedModel,
    root: str | Path,
    *,
    protocol: str = "mfg_hmoe",
    degradation: str = "bilinear",
    metrics: Sequence[str] = (),
    split: Split = "test",
    device: str = "auto",
    precision: Precision = "float32",
    skip_corrupt: bool = False,
    conserve: bool = False,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Make images small, super-resolve them, compare with the originals.

    Args:
        model: from :func:`geomoe.load`.
        root: a folder in the layout of UCMerced or AID, of which ``split`` is scored, or any folder of
            images alone, all of which are; the name of the folder that holds an image is its class.
        protocol: name of a :class:`geomoe.metrics.protocol.Protocol`.
        degradation: a name of docs/degradations.md; or ``real``, where ``root`` holds pairs that two sensors
            measured (OLI2MSI's test pairs, Sen2Venus, folders LR and HR) and nothing is downsampled; their
            values come in the range that the model was trained in.
        metrics: names of :data:`geomoe.evaluation.super_resolution.further.METRICS`; those of the
            protocol are always there.
        split: of UCMerced and AID.
        device: of the model.
        precision: that the model computes in. In bfloat16 it computes in float32 too, for what that costs.
        skip_corrupt: whether images that cannot be read are left out, and reported.
        conserve: whether the model's results are given the means that their inputs have, within 0 and 1; see
            :func:`geomoe.layers.super_resolution.conserve.conserve`.
        progress: called with images done and images in all.
        say: called with a line that says what is left out, and how scenes of two folders were matched.

    Raises:
        GeomoeError: nothing to score, images that cannot be read, or unknown names.
    """
    rules, names = get_protocol(protocol), check_metrics(metrics)
    contract = model.contract
    root = Path(root)
    if degradation == REAL:
        stretch = model.card.data.get(VALUES) != REFLECTANCE
        count, scored, cases = _measured(root, contract, stretch, skip_corrupt, say)
    else:
        made = get_degradation(degradation)
        count, scored, cases = _made(root, contract, made, split, skip_corrupt, say)
    place = pick_device(device)
    pick_precision(precision, place, measured=False)
    module = model.model.to(place)

    def upscaled(low: Tensor, precision: Precision) -> Tensor:
        with torch.inference_mode(), computing_in(precision, place):
            made: Tensor = module(low.to(place)).float().cpu()
        return (conserved(low, made, contract.scale, (0.0, 1.0)) if conserve else made)[0]

    losses: list[float] = []
    largest = 0.0
    every = (*rules.metrics, *names)
    ours: ItemScores = {}
    base: ItemScores = {}
    groups: dict[str, list[str]] = {}
    noises: list[float] = []
    for done, (group, name, low, high, make_small) in enumerate(cases):
        low, high = to_unit(low)[None], to_unit(high)
        result = upscaled(low, precision)
        try:
            bicubic = interpolated(low, contract.scale)[0]
            for found, image in ((ours, result), (base, bicubic)):
                found[name] = rules.scores(image, high, contract.scale)
                found[name] |= score_further(names, image, high, low[0], contract.scale, rules, make_small)
            if precision != "float32":
                exact = upscaled(low, "float32")
                kept = rules.scores(exact, high, contract.scale)
                losses.append(kept[rules.ranks] - ours[name][rules.ranks])
                largest = max(largest, float((exact - result).abs().max()) * 255)
        except GeomoeError as error:
            raise GeomoeError(f"{root / name}: {error}") from error
        groups.setdefault(group, []).append(name)
        if (noise := image_noise(low[0].numpy())) is not None:
            noises.append(noise)
        if progress:
            progress(done + 1, count)
    return Evaluation(
        weights=model.name,
        hash=model.hash,
        scale=contract.scale,
        scored=scored,
        protocol=protocol,
        degradation=degradation,
        precision=precision,
        loss=loss_of(losses, largest) if losses else None,
        conserve=conserve,
        overall=mean_scores(every, ours, base),
        by_class={
            name: mean_scores(every, _some(ours, of), _some(base, of)) for name, of in sorted(groups.items())
        },
        by_item=ours,
        baseline_by_item=base,
        noise=middle(noises),
    )


def _some(scores: ItemScores, items: Sequence[str]) -> ItemScores:
    return {item: scores[item] for item in items}


def middle(noises: Sequence[float]) -> tuple[float, float] | None:
    """The quartiles of what is estimated of images; ``None`` of none."""
    if not noises:
        return None
    low, high = np.percentile(noises, (25, 75))
    return round(float(low), 5), round(float(high), 5)
