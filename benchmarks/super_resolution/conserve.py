"""What it costs or brings that an output's means are the input's pixels, by how the input was made.

    python benchmarks/super_resolution/conserve.py --data FOLDER [--model mfg_hmoe_light] [--images 60]
    python benchmarks/super_resolution/conserve.py --scenes scene.tif ... [--model mfg_hmoe_light]

Images of FOLDER (of UCMerced those of the test split) are downsampled and super-resolved. For each way of
making them small, the gain of the model over bicubic upsampling, and what ways to keep the input add to it:

- mean: ``geomoe evaluate --conserve``, what is missing in a pixel's square as a smooth surface of that mean;
- squares: the same means, but what is missing goes to all of a square alike (Harder et al. 2023);
- frequency: frequencies below a part of the input's highest (its Nyquist frequency) are those of the input,
  upsampled, the others the model's; a Gaussian in the Fourier domain that passes half there, over the image
  and its mirror images, so that no edge is where the image ends.

Then how far the means lie from the input without any of them, in levels of 255.

Of scenes the same by ``geomoe upscale --consistency``, in their units, with and without ``--conserve``, and
the time that cores spent.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from torch import Tensor

import geomoe
from geomoe.data.images import find_images, read_image, to_unit
from geomoe.data.super_resolution.degradation import get_degradation, interpolated
from geomoe.data.super_resolution.layouts import SPLIT_LAYOUTS, find_layout
from geomoe.data.super_resolution.pairs import degrade
from geomoe.layers.super_resolution.conserve import conserve
from geomoe.metrics.protocol import get_protocol
from geomoe.pipeline import upscale

_INPUTS = ("average", "bilinear", "bicubic", "mtf_sharp", "mtf", "mtf_soft")
_BOUNDS = (0.0, 1.0)


def _squares(low: Tensor, high: Tensor, scale: int) -> Tensor:
    missing = low - F.avg_pool2d(high, scale)
    return conserve(low, high + F.interpolate(missing, scale_factor=scale, mode="nearest"), scale, _BOUNDS)


def _frequency(part: float) -> Callable[[Tensor, Tensor, int], Tensor]:
    def replaced(low: Tensor, high: Tensor, scale: int) -> Tensor:
        missing = interpolated(low, scale) - high
        height, width = missing.shape[-2:]
        mirrored = torch.cat([missing, missing.flip(-1)], -1)
        mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
        rows, columns = torch.fft.fftfreq(2 * height)[:, None], torch.fft.rfftfreq(2 * width)[None]
        passed = 0.5 ** ((rows**2 + columns**2) * (2 * scale / part) ** 2)
        return (
            high
            + torch.fft.irfft2(torch.fft.rfft2(mirrored) * passed, s=mirrored.shape[-2:])[
                ..., :height, :width
            ]
        )

    return replaced


WAYS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "without": lambda low, high, scale: high,
    "mean": lambda low, high, scale: conserve(low, high, scale, _BOUNDS),
    "squares": _squares,
    "frequency, 1/4": _frequency(0.25),
    "1/2": _frequency(0.5),
    "1": _frequency(1.0),
}


def main() -> None:
    """Print one line for each way of making images small, or for each scene."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path)
    what.add_argument("--scenes", type=Path, nargs="+")
    parser.add_argument("--model", default="mfg_hmoe_light")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--inputs", default=",".join(_INPUTS), help="names of degradations")
    args = parser.parse_args()
    print(f"{platform.machine()}, torch {torch.__version__}; {args.model}\n")
    if args.scenes:
        of_scenes(args.scenes, args.model)
    else:
        of_images(args.data, args.images, args.model, args.inputs.split(","))


def of_scenes(paths: Sequence[Path], model: str) -> None:
    """Print a line for each scene and scale."""
    print("| scene | scale | without: on average, at most | conserved | core s | conserved |")
    print(f"|{'---|' * 6}")
    for path in paths:
        for scale in (2, 4):
            apart, times = [], []
            for kept in (False, True):
                with tempfile.TemporaryDirectory() as folder:
                    out, residual = Path(folder, "out.tif"), Path(folder, "residual.tif")
                    began = time.process_time()
                    upscale(path, out, model=model, scale=scale, consistency=residual, conserve=kept)
                    times.append(time.process_time() - began)
                    with rasterio.open(residual) as file:
                        distance = np.abs(file.read())
                apart.append(f"{np.nanmean(distance):.3g}, {np.nanmax(distance):.3g}")
            cells = [path.name, f"x{scale}", *apart, *(f"{each:.1f}" for each in times)]
            print(f"| {' | '.join(cells)} |", flush=True)


def of_images(data: Path, images: int, model: str, inputs: Sequence[str]) -> None:
    """Print a line for each way of making images small and scale."""
    files = SPLIT_LAYOUTS.get(find_layout(data))
    paths = find_images(data) if files is None else files(data, "test")
    paths = paths[:: max(1, len(paths) // images)]
    rules = get_protocol("mfg_hmoe")
    print(f"{len(paths)} images, protocol {rules.name}\n")
    head = ["input", "scale", "gain, dB", *list(WAYS)[1:], "means apart: on average, at most"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for scale in (2, 4):
        loaded = geomoe.load(model, scale)
        for name in inputs:
            small = get_degradation(name)
            found, apart = [], []
            for i, path in enumerate(paths):
                low, high = degrade(read_image(path, loaded.contract.bands), scale, small.drawn(i))
                low, high = to_unit(low)[None], to_unit(high)
                with torch.inference_mode():
                    result = loaded.model(low)
                scores = [rules.score(way(low, result, scale)[0], high, scale)[0] for way in WAYS.values()]
                found.append([*scores, rules.score(interpolated(low, scale)[0], high, scale)[0]])
                distance = (F.avg_pool2d(result, scale) - low).abs() * 255
                apart.append((distance.mean().item(), distance.max().item()))
            plain, *others, bicubic = np.mean(found, axis=0)
            cells = [f"{plain - bicubic:+.3f}", *(f"{other - plain:+.3f}" for other in others)]
            mean, most = np.mean(apart, axis=0)[0], np.max(apart, axis=0)[1]
            print(f"| `{name}` | x{scale} | {' | '.join(cells)} | {mean:.2f}, {most:.0f} |", flush=True)


if __name__ == "__main__":
    main()
