"""How weights that make images larger are scored, calibrated and shown."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomoe.data.super_resolution.degradation import MIXED
from geomoe.evaluation.evaluators import Drawn, Evaluator, Progress, Samples, refuse
from geomoe.evaluation.super_resolution.evaluate import ImageEvaluation, evaluate
from geomoe.models import LoadedModel
from geomoe.printable import counted

if TYPE_CHECKING:
    from geomoe.evaluation.benchmark.config import Benchmark
    from geomoe.evaluation.benchmark.images import Images

__all__ = ["ImageEvaluator"]


class ImageEvaluator(Evaluator):
    """Of images beside interpolation, by protocols, inputs made in a way that can be chosen."""

    def evaluate(self, model: LoadedModel, root: Path, **options: Any) -> ImageEvaluation:
        """Options are those of :func:`geomoe.evaluation.super_resolution.evaluate.evaluate`."""
        refuse(model, [name for name in options if name not in signature(evaluate).parameters])
        return evaluate(model, root, **options)

    def picture(self, models: Sequence[LoadedModel], source: Path, target: Path, **options: Any) -> Drawn:
        """Of one image, downsampled or the input itself; options are those of :func:`_picture`."""
        refuse(models[0], [name for name in options if name not in signature(_picture).parameters])
        return _picture(models, source, target, **options)

    def as_trained(self, model: LoadedModel) -> dict[str, Any]:
        """By the degradation of the training, if it was one."""
        return {"degradation": "bilinear" if model.card.degradation == MIXED else model.card.degradation}

    def calibration(self, model: LoadedModel, root: Path, most: int) -> tuple[Samples, Samples, str]:
        """Inputs as small as in training, of images or of several sources."""
        from geomoe.evaluation.super_resolution.calibration import calibration_samples

        return calibration_samples(model, root, most)

    def benchmark_data(self, benchmark: Benchmark, root: Path) -> Images:
        """Folders of images, or what is held out of several sources."""
        from geomoe.evaluation.super_resolution.benchmark import locate_images

        return locate_images(benchmark, root)


def _picture(
    models: Sequence[LoadedModel],
    source: Path,
    target: Path,
    *,
    crops: Sequence[str] = (),
    degradation: str | None = None,
    protocol: str | None = None,
    as_input: bool = False,
    layer: int = -1,
    tile: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Drawn:
    """As of :func:`geomoe.evaluation.super_resolution.compare.compare`; crops are as people write them."""
    from geomoe.evaluation.super_resolution.compare import Score, compare
    from geomoe.evaluation.super_resolution.crops import parse_crop
    from geomoe.evaluation.super_resolution.picture import draw

    found = compare(
        source,
        models,
        scale=models[0].contract.scale,
        degradation=None if as_input else degradation or "bilinear",
        crops=[parse_crop(crop) for crop in crops],
        layer=layer,
        protocol=protocol,
        tile=tile,
        device=device,
        progress=progress,
    )
    draw(found, target)

    def cell(score: Score) -> str:
        return "too small" if score is None else f"{score[0]:.2f} dB {score[1]:.4f}"

    return Drawn(
        found.as_dict(),
        f"PSNR and SSIM, protocol {found.protocol}, input {found.degradation}",
        ["", "whole image", *(f"{c.x},{c.y},{c.width},{c.height}" for c in found.crops)],
        []
        if found.protocol is None
        else [[panel.name, *map(cell, (panel.whole, *panel.crops))] for panel in found.panels],
        f"{counted(len(found.crops), 'crop')}, {counted(len(models), 'model')}",
    )
