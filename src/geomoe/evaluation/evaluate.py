"""Scoring a model on images whose truth is known, beside bicubic upsampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from geomoe.data.degradation import get_degradation, upsample_bicubic
from geomoe.data.images import find_images, read_image, to_unit
from geomoe.data.pairs import degrade
from geomoe.data.ucmerced import Split, ucmerced_files, ucmerced_folder
from geomoe.errors import GeomoeError
from geomoe.evaluation.further import Further, check_metrics, means, score_further
from geomoe.metrics.protocol import get_protocol
from geomoe.models import LoadedModel
from geomoe.pipeline.runner import pick_device

__all__ = ["Evaluation", "Scores", "evaluate"]


@dataclass(frozen=True)
class Scores:
    """Means over images. PSNR in dB; ``further`` metrics, if any were asked for, by name."""

    images: int
    psnr: float
    ssim: float
    bicubic_psnr: float
    bicubic_ssim: float
    further: dict[str, Further] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """PSNR above bicubic, dB."""
        return self.psnr - self.bicubic_psnr

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the gain included."""
        scores = asdict(self)
        further = scores.pop("further")
        return {**scores, "gain": self.gain, **({"further": further} if further else {})}


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found, with everything that is needed to repeat it."""

    weights: str
    hash: str
    scale: int
    scored: str
    protocol: str
    degradation: str
    overall: Scores
    by_class: dict[str, Scores]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; gains included."""
        return {
            **asdict(self),
            "overall": self.overall.as_dict(),
            "by_class": {name: s.as_dict() for name, s in self.by_class.items()},
        }


@dataclass(frozen=True)
class _Row:
    """Of one image: PSNR and SSIM, then further metrics; of the model and of bicubic upsampling."""

    ours: tuple[float, float]
    base: tuple[float, float]
    ours_further: tuple[float, ...]
    base_further: tuple[float, ...]


def _mean(rows: Sequence[_Row], names: Sequence[str]) -> Scores:
    columns = zip(*((*row.ours, *row.base) for row in rows), strict=True)
    further = means(names, [row.ours_further for row in rows], [row.base_further for row in rows])
    psnr, ssim, bicubic_psnr, bicubic_ssim = (fmean(column) for column in columns)
    return Scores(len(rows), psnr, ssim, bicubic_psnr, bicubic_ssim, further)


def evaluate(
    model: LoadedModel,
    root: str | Path,
    *,
    protocol: str = "mfg_hmoe",
    degradation: str = "bilinear",
    metrics: Sequence[str] = ("psnr", "ssim"),
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
        metrics: names of :data:`geomoe.evaluation.further.METRICS`; PSNR and SSIM are always there.
        split: of UCMerced.
        device: of the model.
        progress: called with images done and images in all.

    Raises:
        GeomoeError: nothing to score, or unknown names.
    """
    rules, make_small = get_protocol(protocol), get_degradation(degradation)
    names = check_metrics(metrics)
    contract = model.contract
    root = Path(root)
    ucmerced = ucmerced_folder(root) is not None
    paths = ucmerced_files(root, split) if ucmerced else find_images(root)
    place = pick_device(device)
    module = model.model.to(place)
    rows: dict[str, list[_Row]] = {}
    for done, path in enumerate(paths):
        image = read_image(path, contract.bands)
        low, high = degrade(image, contract.scale, make_small)
        low, high = to_unit(low)[None], to_unit(high)
        with torch.inference_mode():
            result = module(low.to(place))[0].float().cpu()
        try:
            bicubic = upsample_bicubic(low, contract.scale)[0]
            ours, base = (rules.score(x, high, contract.scale) for x in (result, bicubic))
            # What degrade() did: rasters of other types than uint8 are never rounded.
            small = make_small if image.dtype == torch.uint8 else replace(make_small, quantise=False)
            further = [
                score_further(names, x, high, low[0], contract.scale, rules, small) for x in (result, bicubic)
            ]
        except GeomoeError as error:
            raise GeomoeError(f"{path}: {error}") from error
        rows.setdefault(path.parent.name, []).append(_Row(ours, base, *further))
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
        overall=_mean([row for group in rows.values() for row in group], names),
        by_class={name: _mean(group, names) for name, group in sorted(rows.items())},
    )
