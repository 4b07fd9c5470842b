"""What `--reliability` marks where models invent: made scenes, noise, a sea, near-infrared as three copies.

    python benchmarks/super_resolution/marked.py [--model mfg_hmoe_light_x4] [--data FOLDER_OF_SCENES]

Of made scenes, of one band of 8 bits, also what share of the values that are wrong by more than 1.5 levels
lies in marked pixels, and the worst error as it is and with the fallback to bicubic upsampling. Of noise its
standard deviation after over before, of all else the share of values outside the range around them. Of the
GeoTIFFs of a folder, the middle: red, green and blue, and each further band as three copies.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from rasterio.windows import Window
from torch import Tensor

import geomoe
from geomoe.data.super_resolution.degradation import interpolated
from geomoe.evaluation.calibrate import shown_rows
from geomoe.evaluation.hardware import hardware
from geomoe.evaluation.super_resolution.invention import MOST_ERROR
from geomoe.evaluation.super_resolution.made_scenes import LEVELS, flat_noise, made_scenes, sea
from geomoe.metrics.invention import noise_gain, overshoot
from geomoe.models import LoadedModel
from geomoe.raster.formats.open import open_scene
from geomoe.raster.read.bands import band_names
from geomoe.raster.read.radiometry import decide_radiometry
from geomoe.raster.read.sample import SceneSample

_CUT, _MIDDLE = 4, 128
"""Input pixels: the border of made scenes that is not looked at, the side of what is taken of a scene."""


def run(model: LoadedModel, low: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The result, the result with the fallback, and what is marked ``[H, W]``; all of three bands."""
    three = low.expand(3, -1, -1)
    scale = model.contract.scale
    with torch.inference_mode():
        result = model.model(three[None])[0].clamp(0, 1)
    assert model.reference is not None
    marked = (model.reference.ood_score(shown_rows(model, three)) > 1).reshape(low.shape[-2:])
    marked = marked.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    return result, torch.where(marked, interpolated(three[None], scale)[0].clamp(0, 1), result), marked


def rows(model: LoadedModel, scenes: list[Path]) -> Iterator[tuple[str, float, str, str, str]]:
    """Name, share that is marked, share of the wrong that is, the figure, the figure with fallback."""
    scale = model.contract.scale
    inner = slice(_CUT * scale, -_CUT * scale)
    kinds: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
    for made in made_scenes(scale, 1, 8):
        result, safe, marked = run(model, made.low)
        errors = [(LEVELS * (image.mean(0) - made.truth[0]).abs())[inner, inner] for image in (result, safe)]
        kinds[made.kind].append((*errors, marked[inner, inner]))
    for kind, of in kinds.items():
        error, fallen, marked = (torch.stack(images) for images in zip(*of, strict=True))
        wrong = error > MOST_ERROR
        found = f"{marked[wrong].double().mean():.1%} of {wrong.double().mean():.1%}" if wrong.any() else "-"
        yield kind, marked.double().mean().item(), found, f"{error.max():.1f} levels", f"{fallen.max():.1f}"
    for sigma in (2, 5, 10):
        low = flat_noise(127, sigma, 1, 8)
        result, safe, marked = run(model, low)
        gains = [noise_gain(image.mean(0, keepdim=True), low) for image in (result, safe)]
        yield (
            f"noise of {sigma} levels",
            marked.double().mean().item(),
            "-",
            f"x {gains[0]:.2f}",
            f"{gains[1]:.2f}",
        )
    for name, low in (("made sea", sea(scale, 8).low), *_of_scenes(scenes)):
        result, safe, marked = run(model, low)
        three = low.expand(3, -1, -1)
        shares = [overshoot(image, three, scale) for image in (result, safe)]
        yield name, marked.double().mean().item(), "-", f"{shares[0]:.2%} beyond", f"{shares[1]:.2%}"


def _of_scenes(paths: list[Path]) -> Iterator[tuple[str, Tensor]]:
    for path in paths:
        with open_scene(path) as scene:
            bands = scene.data_bands
            if not bands:
                continue
            x, y = ((size - _MIDDLE) // 2 for size in (scene.width, scene.height))
            data, _ = scene.read(Window(x, y, _MIDDLE, _MIDDLE), bands)
            sample = SceneSample(tuple(band.ravel() for band in data), 1.0)
            names = band_names(scene, bands)
            image = torch.from_numpy(decide_radiometry(scene.dtype, sample).to_model(data))
        if len(image) >= 3:
            yield f"{path.name}, red, green, blue", image[:3]
        for i in range(3 if len(image) >= 3 else 0, len(image)):
            yield f"{path.name}, {names[i]} alone", image[i : i + 1]


def main() -> None:
    """Print one line for each made scene and each scene."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mfg_hmoe_light_x4")
    parser.add_argument("--data", type=Path, help="folder of scenes, .tif")
    args = parser.parse_args()
    model = geomoe.load(args.model)
    if model.reference is None:
        raise SystemExit(f"{model.name} brings no reference; run geomoe calibrate first")
    print(f"{hardware()}, torch {torch.__version__}; {model.name}\n")
    print("| input | marked | of what is wrong | as it is | with fallback |\n|---|---|---|---|---|")
    for name, marked, found, plain, safe in rows(model, sorted(args.data.glob("*.tif")) if args.data else []):
        print(f"| {name} | {marked:.2%} | {found} | {plain} | {safe} |", flush=True)


if __name__ == "__main__":
    main()
