"""Several models on one image: results, scores of crops, expert maps. Drawing them is for ``picture``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geomoe.data.images import read_image, to_unit
from geomoe.data.super_resolution.degradation import get_degradation, interpolated
from geomoe.data.super_resolution.pairs import degrade
from geomoe.errors import GeomoeError
from geomoe.evaluation.expert_maps import ExpertMap, check_layer
from geomoe.evaluation.super_resolution.crops import check_inside, most_different, score_crop
from geomoe.evaluation.super_resolution.inference import super_resolve
from geomoe.metrics.protocol import Protocol, get_protocol
from geomoe.pipeline.runner import Predictor, Runner, check_scale, pick_device, tiling_of
from geomoe.pipeline.tiles import Box, Tiles

__all__ = ["Comparison", "Panel", "compare"]

_MOST = 4096 * 4096
Score = tuple[float, float] | None


@dataclass(frozen=True)
class Panel:
    """One way to make the image large.

    Attributes:
        name: of the weights, or ``bicubic``.
        image: ``[C, H, W]`` float32 in about [0, 1].
        whole: PSNR in dB and SSIM of the image; None without truth, or where it is too small to score.
        crops: the same of every crop.
        experts: which expert drew each pixel; None where there is no such map.
        no_experts: why there is none, in words.
    """

    name: str
    image: Tensor
    whole: Score
    crops: tuple[Score, ...]
    experts: ExpertMap | None = None
    no_experts: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the pixels."""
        scores = {"whole": _as_dict(self.whole), "crops": [_as_dict(score) for score in self.crops]}
        if self.name == "bicubic":
            return scores
        experts = {"none": self.no_experts} if self.experts is None else self.experts.as_dict()
        return {**scores, "experts": experts}


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        image: name of the file.
        scale: of the super-resolution.
        low: ``[C, h, w]`` the input in about [0, 1].
        truth: ``[C, H, W]``, cut to whole multiples of the scale; None where the image was the input.
        eight_bit: whether the file holds 8-bit values, of which 0 to 255 are 0 to 1 here; others were scaled.
        degradation, protocol: how the input was made and how scores are; None without truth.
        crops: in high-resolution pixels.
        chosen: whether the crop was found by
            :func:`geomoe.evaluation.super_resolution.crops.most_different`, not given.
        panels: bicubic upsampling, then the models in their order.
    """

    image: str
    scale: int
    low: Tensor
    truth: Tensor | None
    eight_bit: bool
    degradation: str | None
    protocol: str | None
    crops: tuple[Box, ...]
    chosen: bool
    panels: tuple[Panel, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything but pixels. PSNR in dB."""
        return {
            "image": self.image,
            "scale": self.scale,
            "size": [self.low.shape[2] * self.scale, self.low.shape[1] * self.scale],
            "degradation": self.degradation,
            "protocol": self.protocol,
            "crops": [[crop.x, crop.y, crop.width, crop.height] for crop in self.crops],
            "crops_chosen_by": "largest variance among the panels" if self.chosen else "the user",
            "results": {panel.name: panel.as_dict() for panel in self.panels},
        }


def _as_dict(score: Score) -> dict[str, float] | None:
    return None if score is None else {"psnr": score[0], "ssim": score[1]}


def compare(
    image: str | Path,
    models: Sequence[Predictor],
    *,
    scale: int = 4,
    degradation: str | None = "bilinear",
    crops: Sequence[Box] = (),
    layer: int = -1,
    protocol: str | None = None,
    tile: int | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Make an image small, super-resolve it by several models, compare the results with it.

    Args:
        image: PNG, JPEG, TIFF or GeoTIFF, read as for :func:`geomoe.evaluate`: with as many bands as the
            models take, invalid pixels filled. One band alone is shown to models of three three times.
        models: as from :func:`geomoe.load`, of different names, all for ``scale`` and one number of bands.
        scale: of the super-resolution.
        degradation: a name of docs/degradations.md; None takes the image for the input itself, without truth.
        crops: in high-resolution pixels; without any, the one that
            :func:`geomoe.evaluation.super_resolution.crops.most_different` finds.
        layer: of those that route in a model, from 1; -1 is the last.
        protocol: of the scores, see :func:`geomoe.evaluation.super_resolution.crops.score_crop`; if None
            ``mfg_hmoe`` for three bands and ``hsenet``, which takes any, for others.
        tile: side of a tile in input pixels; each model's own if None.
        device: of the models.
        progress: called with tiles done and tiles in all.

    Raises:
        GeomoeError: an image, models, crops or names that cannot be used.
    """
    _check_models(models, scale)
    place = pick_device(device)
    check_layer(models, layer)
    made = None if degradation is None else get_degradation(degradation)
    given = _read(Path(image), models[0].contract.bands)
    if given.shape[1] * given.shape[2] * (1 if made else scale**2) > _MOST:
        raise GeomoeError(f"{image} is too large for a picture at scale {scale}; cut a part out of it")
    low, high = (given, None) if made is None else degrade(given, scale, made.drawn(0))
    low, truth = to_unit(low), None if high is None else to_unit(high)
    rules = None if truth is None else _rules(protocol, len(truth))
    height, width = (n * scale for n in low.shape[1:])
    for crop in crops:
        check_inside(crop, width, height)

    tiles = [Tiles(low.shape[2], low.shape[1], tiling_of(model), tile) for model in models]
    total, done = sum(map(len, tiles)), 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    results = [
        super_resolve(m, low, cuts, Runner(m, place), layer, advance)
        for m, cuts in zip(models, tiles, strict=True)
    ]
    bicubic = interpolated(low[None], scale)[0]
    pictures = [bicubic, *(result for result, _, _ in results)]
    shown = tuple(crops) or (most_different([*pictures, *([] if truth is None else [truth])]),)

    def scores(result: Tensor) -> tuple[Score, tuple[Score, ...]]:
        if truth is None or rules is None:
            return None, (None,) * len(shown)
        whole, *parts = (
            score_crop(rules, result, truth, scale, box) for box in (Box(0, 0, width, height), *shown)
        )
        return whole, tuple(parts)

    return Comparison(
        image=Path(image).name,
        scale=scale,
        low=low,
        truth=truth,
        eight_bit=given.dtype == torch.uint8,
        degradation=degradation,
        protocol=None if rules is None else rules.name,
        crops=shown,
        chosen=not crops,
        panels=(
            Panel("bicubic", bicubic, *scores(bicubic)),
            *(
                Panel(model.name, result, *scores(result), experts, why)
                for model, (result, experts, why) in zip(models, results, strict=True)
            ),
        ),
    )


def _check_models(models: Sequence[Predictor], scale: int) -> None:
    names = [model.name for model in models]
    bands = sorted({model.contract.bands for model in models})
    if not models:
        raise GeomoeError("no model to compare; give one at least")
    for name in names:
        if names.count(name) > 1 or name == "bicubic":
            raise GeomoeError(
                f"two panels would be called {name!r}; give each weights file once, by its own name"
            )
    if len(bands) > 1:
        raise GeomoeError(
            f"the models take {' and '.join(map(str, bands))} bands; compare those of one number"
        )
    for model in models:
        check_scale(model, scale)


def _rules(protocol: str | None, bands: int) -> Protocol:
    rules = get_protocol(protocol or ("mfg_hmoe" if bands == 3 else "hsenet"))
    rules.check_bands(bands)
    return rules


def _read(path: Path, bands: int) -> Tensor:
    """As :func:`geomoe.data.images.read_image`; a raster of one band where more are wanted as that one."""
    if not path.is_file():
        raise GeomoeError(f"{path} does not exist or is not a file; give an image")
    try:
        return read_image(path, bands)
    except GeomoeError:
        if not _has_one_band(path):
            raise
        return read_image(path, 1)


def _has_one_band(path: Path) -> bool:
    from geomoe.raster.read.scene import open_file  # rasterio is wanted for these files alone

    with suppress(GeomoeError), open_file(path) as scene:
        return len(scene.data_bands) == 1
    return False
