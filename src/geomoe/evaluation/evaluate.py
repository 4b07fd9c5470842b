"""Scoring a model on images whose truth is known, beside bicubic upsampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from geomoe.data.degradation import get_degradation, upsample_bicubic
from geomoe.data.images import find_images, read_image, to_unit
from geomoe.data.pairs import degrade
from geomoe.data.ucmerced import Split, ucmerced_files, ucmerced_folder
from geomoe.errors import GeomoeError
from geomoe.metrics.protocol import get_protocol
from geomoe.models import LoadedModel
from geomoe.pipeline.runner import pick_device

__all__ = ["Evaluation", "Scores", "evaluate"]


@dataclass(frozen=True)
class Scores:
    """Means over images. PSNR in dB."""

    images: int
    psnr: float
    ssim: float
    bicubic_psnr: float
    bicubic_ssim: float

    @property
    def gain(self) -> float:
        """PSNR above bicubic, dB."""
        return self.psnr - self.bicubic_psnr


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found, with everything that is needed to repeat it.

    ``by_image`` goes by an image's path below the folder that was scored.
    """

    weights: str
    hash: str
    scale: int
    scored: str
    protocol: str
    degradation: str
    overall: Scores
    by_class: dict[str, Scores]
    by_image: dict[str, Scores]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; gains included."""
        return {
            **asdict(self),
            "overall": {**asdict(self.overall), "gain": self.overall.gain},
            **{
                part: {name: {**asdict(s), "gain": s.gain} for name, s in scores.items()}
                for part, scores in (("by_class", self.by_class), ("by_image", self.by_image))
            },
        }


def _mean(rows: Sequence[tuple[float, float, float, float]]) -> Scores:
    return Scores(len(rows), *(fmean(column) for column in zip(*rows, strict=True)))


def evaluate(
    model: LoadedModel,
    root: str | Path,
    *,
    protocol: str = "mfg_hmoe",
    degradation: str = "bilinear",
    split: Split = "test",
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Make images small, super-resolve them, compare with the originals.

    Args:
        model: from :func:`geomoe.load`.
        root: a folder in the UCMerced layout, of which ``split`` is scored, or any folder of images,
            all of which are; the name of the folder that holds an image is its class.
        protocol: name of a :class:`geomoe.metrics.protocol.Protocol`.
        degradation: name of a :class:`geomoe.data.degradation.Degradation`.
        split: of UCMerced.
        device: of the model.
        progress: called with images done and images in all.

    Raises:
        GeomoeError: nothing to score, or unknown names.
    """
    rules, make_small = get_protocol(protocol), get_degradation(degradation)
    contract = model.contract
    root = Path(root)
    ucmerced = ucmerced_folder(root) is not None
    paths = ucmerced_files(root, split) if ucmerced else find_images(root)
    place = pick_device(device)
    module = model.model.to(place)
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    by_image: dict[str, Scores] = {}
    for done, path in enumerate(paths):
        low, high = degrade(read_image(path, contract.bands), contract.scale, make_small)
        low, high = to_unit(low)[None], to_unit(high)
        with torch.inference_mode():
            result = module(low.to(place))[0].float().cpu()
        try:
            ours = rules.score(result, high, contract.scale)
            base = rules.score(upsample_bicubic(low, contract.scale)[0], high, contract.scale)
        except GeomoeError as error:
            raise GeomoeError(f"{path}: {error}") from error
        rows.setdefault(path.parent.name, []).append((*ours, *base))
        by_image[path.relative_to(root).as_posix()] = Scores(1, *ours, *base)
        if progress:
            progress(done + 1, len(paths))
    return Evaluation(
        weights=model.name,
        hash=model.hash,
        scale=contract.scale,
        scored=f"{len(paths)} {split} images of UCMerced"
        if ucmerced
        else f"all {len(paths)} images of a folder",
        protocol=protocol,
        degradation=degradation,
        overall=_mean([row for group in rows.values() for row in group]),
        by_class={name: _mean(group) for name, group in sorted(rows.items())},
        by_image=by_image,
    )
