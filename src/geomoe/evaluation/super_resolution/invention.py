"""How much a model invents where nothing is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from geomoe.data.super_resolution.degradation import crop_to_multiple, get_degradation, interpolated
from geomoe.evaluation.super_resolution.made_scenes import LEVELS, flat_noise, made_scenes, sea
from geomoe.layers.super_resolution.conserve import conserve
from geomoe.layers.super_resolution.known import Known
from geomoe.metrics.invention import noise_gain, overshoot, worst_error
from geomoe.models.precision import Precision
from geomoe.noise import image_noise
from geomoe.pipeline.run import upscale
from geomoe.pipeline.runner import Predictor, Runner, pick_device
from geomoe.raster.formats.open import open_scene
from geomoe.raster.read.radiometry import quantise
from geomoe.raster.read.scene import Scene, open_file

__all__ = [
    "MOST_ERROR",
    "MOST_NOISE",
    "MOST_OVERSHOOT",
    "Enlarge",
    "Invention",
    "bicubic",
    "by_model",
    "invention",
    "own_overshoot",
    "scene_overshoot",
]

MOST_ERROR = 1.5
"""Of 255 levels, from the true surface of a made scene: what weights that ship are held to."""
MOST_NOISE = 1.0
"""Standard deviation of the noise in a flat scene, after over before."""
MOST_OVERSHOOT = 0.003
"""Share of values outside the range of the input around them by more than 5 % of the scene's, beyond the
share that the scene itself has: a pixel is a mean, and what it is the mean of does leave its range."""

_CUT = 4
"""Input pixels at the border of a made scene that are not looked at: what lies beyond is not known there."""
_LEVELS, _SIGMAS = (40, 127, 215), (2, 5, 10)
_CASES = tuple((bands, bits) for bands in (1, 3) for bits in (8, 16))
_QUICK_CASES, _QUICK_EVERY = ((1, 8), (3, 16)), 5

Enlarge = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""``[C, h, w]`` in [0, 1] to ``[C, h * scale, w * scale]``."""


@dataclass(frozen=True)
class Invention:
    """What :func:`invention` found of one way to make images large.

    Attributes:
        error: largest distance from the true surface, in levels of 255, by kind of made scene; of 8-bit and
            16-bit ones, of one band and of three.
        noise: standard deviation of white noise in a flat scene, after over before, by that before in levels;
            the largest of dark, middle and bright scenes.
        overshoot: share of values outside the range of the input around them, by scene.
        own: that share of the scene itself, of those where it is known.
    """

    error: dict[str, float]
    noise: dict[str, float]
    overshoot: dict[str, float]
    own: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def worst(self) -> tuple[float, float, float]:
        """The largest of each; of overshoot, of what there is more of than in the scene itself."""
        beyond = (share - self.own.get(scene, 0) for scene, share in self.overshoot.items())
        return max(self.error.values()), max(self.noise.values()), max(beyond)


def by_model(
    model: Predictor, device: str = "auto", precision: Precision = "float32", *, keep_means: bool = False
) -> Enlarge:
    """A model as `upscale` runs it: told of the noise that is found in an image, and of nothing else.

    Args:
        model: from :func:`geomoe.load`.
        device: of the model.
        precision: in which it computes.
        keep_means: whether the mean of the result over each pixel of the image is that pixel, as with
            ``--conserve``.
    """
    place, scale = pick_device(device), model.contract.scale

    def enlarge(low: NDArray[np.float32]) -> NDArray[np.float32]:
        high = Runner(model, place, precision, Known(noise=image_noise(low)))(low)
        if not keep_means:
            return high
        kept = conserve(torch.from_numpy(low)[None], torch.from_numpy(high)[None], scale, (0.0, 1.0))
        return np.asarray(kept[0].numpy())

    return enlarge


def bicubic(scale: int) -> Enlarge:
    """Bicubic upsampling, to stand beside models."""
    return lambda low: interpolated(torch.from_numpy(low)[None], scale)[0].numpy()


def invention(enlarge: Enlarge, scale: int, *, quick: bool = False) -> Invention:
    """Measure on made scenes, of one band and of three, each of 8 bits and of 16.

    Args:
        enlarge: :func:`by_model`, :func:`bicubic` or anything like them.
        scale: of the super-resolution.
        quick: every fifth surface alone, of one band with 8 bits and of three with 16: seconds on one core
            for a light model.
    """
    cases, every = (_QUICK_CASES, _QUICK_EVERY) if quick else (_CASES, 1)

    def made_large(low: Tensor) -> Tensor:
        return torch.from_numpy(enlarge(low.float().numpy())).clamp(0, 1)

    cut = slice(_CUT * scale, -_CUT * scale)
    error: dict[str, float] = defaultdict(float)
    noise: dict[str, float] = defaultdict(float)
    for bands, bits in cases:
        for made in islice(made_scenes(scale, bands, bits), 0, None, every):
            result, truth = made_large(made.low)[:, cut, cut], made.truth[:, cut, cut]
            error[made.kind] = max(error[made.kind], LEVELS * worst_error(result, truth))
        for sigma, level in product(_SIGMAS, _LEVELS):
            low = flat_noise(level, sigma, bands, bits)
            gain = noise_gain(made_large(low)[:, cut, cut], low[:, _CUT:-_CUT, _CUT:-_CUT])
            noise[str(sigma)] = max(noise[str(sigma)], gain)
    shot, own = {}, {}
    for bits in (8, 16):
        made = sea(scale, bits)
        name = f"{made.kind}, {bits} bits"
        shot[name], own[name] = (overshoot(x, made.low, scale) for x in (made_large(made.low), made.truth))
    return Invention(dict(error), dict(noise), shot, own)


def scene_overshoot(scene: str | Path, **options: Any) -> tuple[float, float]:
    """Overshoot of what `upscale` makes of a scene, and of bicubic upsampling of the same scene.

    Args:
        scene: anything that can be upscaled.
        options: as of :func:`geomoe.upscale`: ``model``, ``scale`` and whatever else.

    Raises:
        GeomoeError: as :func:`geomoe.upscale`.
    """
    with TemporaryDirectory() as folder:
        made = upscale(scene, Path(folder) / "made.tif", **options)
        with open_file(made.output) as file:
            result, fine = _whole(file, range(1, len(made.plan.bands) + 1))
    scale = made.plan.output_size[0] // made.plan.size[0]
    with open_scene(scene, options.get("bands")) as file:
        low, _ = _whole(file, made.plan.bands)
    valid = fine[:, ::scale, ::scale]
    low = np.where(valid, low, 0)
    # As the result is: rounded, and within its type.
    smooth = quantise(bicubic(scale)(low).astype(np.float64), fine, made.plan.dtype, None)
    of, there = torch.from_numpy(low), torch.from_numpy(valid)
    ours, base = (torch.from_numpy(image.astype(np.float32)) for image in (result, smooth))
    return overshoot(ours, of, scale, valid=there), overshoot(base, of, scale, valid=there)


def own_overshoot(scene: str | Path, scale: int, bands: str | None = None) -> float:
    """Overshoot of a scene over itself downsampled, which is about what an ideal result has over the scene.

    Args:
        scene: anything that can be upscaled.
        scale: by which it is downsampled, by antialiased bilinear interpolation.
        bands: as of :func:`geomoe.upscale`.
    """
    with open_scene(scene, bands) as file:
        data, valid = _whole(file, file.data_bands)
    fine, good = (crop_to_multiple(torch.from_numpy(x.astype(np.float32)), scale) for x in (data, valid))
    low = get_degradation("bilinear").unrounded()(torch.where(good > 0, fine, 0)[None], scale)[0]
    whole = -F.max_pool2d(-good[None], scale)[0] > 0
    return overshoot(fine, low, scale, valid=whole)


def _whole(scene: Scene, bands: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values and validity of all of a scene, ``[C, H, W]`` each."""
    return scene.read(Window(0, 0, scene.width, scene.height), bands)
