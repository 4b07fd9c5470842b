"""Scoring a model on images whose truth is known, beside bicubic upsampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geomoe.data.datasets import DATA_SETS
from geomoe.data.images import to_unit
from geomoe.data.sample import Lazy
from geomoe.data.split import Split
from geomoe.data.super_resolution.degradation import REAL, interpolated
from geomoe.data.super_resolution.layouts import REFLECTANCE, VALUES, find_layout
from geomoe.data.super_resolution.named import MadeSmall, named_images
from geomoe.errors import GeomoeError
from geomoe.evaluation.evaluation import Evaluation
from geomoe.evaluation.precision import loss_of
from geomoe.evaluation.scores import ItemScores, mean_scores
from geomoe.evaluation.statistics import bootstrap_interval
from geomoe.evaluation.super_resolution.extra_metrics import check_metrics, score_extra
from geomoe.layers.super_resolution.conserve import conserve as conserved
from geomoe.metrics.protocol import get_protocol
from geomoe.models import LoadedModel
from geomoe.models.device import pick_device
from geomoe.models.precision import Precision, computing_in, pick_precision
from geomoe.noise import image_noise
from geomoe.printable import counted

__all__ = ["ImageEvaluation", "evaluate", "middle"]


@dataclass(frozen=True, kw_only=True)
class ImageEvaluation(Evaluation):
    """What :func:`evaluate` found; samples are images, by their paths below the folder that was scored.

    Attributes:
        scale: of the model.
        conserve: as it was asked for.
        baseline_by_item: metrics of the baseline of each image.
    """

    scale: int
    conserve: bool
    baseline_by_item: ItemScores


def _words(samples: Lazy, layout: str) -> str:
    """What was scored."""
    count = len(samples)
    if not isinstance(samples, MadeSmall):
        return f"{count} measured pairs of layout {layout}"
    if samples.split is not None:
        what = f"{counted(count, f'{samples.split} image')} of {DATA_SETS[layout].title}"
    else:
        what = f"all {count} images of a folder" if count != 1 else "the one image of a folder"
    left = samples.left_out
    return f"{what}, without {left} that cannot be read" if left else what


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
) -> ImageEvaluation:
    """Make images small, super-resolve them, compare with the originals.

    Args:
        model: from :func:`geomoe.load`.
        root: a folder in the layout of UCMerced or AID, of which ``split`` is scored, or any folder of
            images alone, all of which are; the name of the folder that holds an image is its class.
        protocol: name of a :class:`geomoe.metrics.protocol.Protocol`.
        degradation: a name of docs/degradations.md; or ``real``, where ``root`` holds pairs that two sensors
            measured (OLI2MSI's test pairs, Sen2Venus, folders LR and HR) and nothing is downsampled; their
            values come in the range that the model was trained in.
        metrics: names of :data:`geomoe.evaluation.super_resolution.extra_metrics.METRICS`; those of the
            protocol are always there.
        split: of UCMerced and AID, and of pairs that were measured.
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
    reflectance = degradation == REAL and model.card.data.get(VALUES) == REFLECTANCE
    samples = named_images(
        root, split, degradation, scale=contract.scale, bands=contract.bands, stretch=not reflectance,
        skip=skip_corrupt, say=say,
    )  # fmt: skip
    layout = find_layout(root)
    known = DATA_SETS.get(layout)
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
    for done, (name, sample) in enumerate(samples):
        low, high = to_unit(sample["image"])[None], to_unit(sample["target"])
        make_small = None
        if isinstance(samples, MadeSmall):
            drawn = samples.degrader(done)
            # Rasters of other types than uint8 are never rounded.
            make_small = drawn if sample["target"].dtype == torch.uint8 else drawn.unrounded()
        result = upscaled(low, precision)
        try:
            bicubic = interpolated(low, contract.scale)[0]
            for found, image in ((ours, result), (base, bicubic)):
                found[name] = rules.scores(image, high, contract.scale)
                found[name] |= score_extra(names, image, high, low[0], contract.scale, rules, make_small)
            if precision != "float32":
                exact = upscaled(low, "float32")
                kept = rules.scores(exact, high, contract.scale)
                losses.append(kept[rules.ranks] - ours[name][rules.ranks])
                largest = max(largest, float((exact - result).abs().max()))
        except GeomoeError as error:
            raise GeomoeError(f"{root / name}: {error}") from error
        group = (root / name).parent.name if isinstance(samples, MadeSmall) else layout
        groups.setdefault(group, []).append(name)
        if (noise := image_noise(low[0].numpy())) is not None:
            noises.append(noise)
        if progress:
            progress(done + 1, len(samples))
    return ImageEvaluation(
        weights=model.name,
        hash=model.hash,
        task="super_resolution",
        data=known.title if known else root.resolve().name,
        sensor=known.sensor if known else None,
        gsd=known.gsd if known else None,
        scored=_words(samples, layout),
        degradation=degradation,
        protocol=protocol,
        precision=precision,
        loss=loss_of(losses, largest) if losses else None,
        ranks=rules.ranks,
        base=rules.base,
        overall=mean_scores(every, ours, base),
        interval=bootstrap_interval(np.array([scores[rules.ranks] for scores in ours.values()])),
        by_class={
            name: mean_scores(every, _some(ours, of), _some(base, of)) for name, of in sorted(groups.items())
        },
        by_item=ours,
        noise=middle(noises),
        scale=contract.scale,
        conserve=conserve,
        baseline_by_item=base,
    )


def _some(scores: ItemScores, items: Sequence[str]) -> ItemScores:
    return {item: scores[item] for item in items}


def middle(noises: Sequence[float]) -> tuple[float, float] | None:
    """The quartiles of what is estimated of images; ``None`` of none."""
    if not noises:
        return None
    low, high = np.percentile(noises, (25, 75))
    return round(float(low), 5), round(float(high), 5)
