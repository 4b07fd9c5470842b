"""What the fallback finds and what it is worth: images spoiled in ways that training did not have.

    python benchmarks/super_resolution/fallback.py --data FOLDER_OF_UCMERCED [--model mfg_hmoe_light]
        [--scale 4] [--images 63]

The low-resolution test images are spoiled, super-resolved, and compared with the truth that was not; gains
are of PSNR over bicubic upsampling of the same spoiled image. A useful fallback marks little of what is like
training, and marks most where the model does harm.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import geomoe
from geomoe.data.images import read_image, to_unit
from geomoe.data.super_resolution.degradation import get_degradation, interpolated
from geomoe.data.super_resolution.pairs import degrade
from geomoe.data.ucmerced import ucmerced_files
from geomoe.evaluation.calibrate import shown_rows

_RANDOM = torch.Generator().manual_seed(0)


def _noise(sigma: float) -> Callable[[Tensor], Tensor]:
    return lambda x: (x + sigma * torch.randn(x.shape, generator=_RANDOM)).clamp(0, 1)


def _dropouts(x: Tensor) -> Tensor:
    drawn = torch.rand(x.shape[-2:], generator=_RANDOM)
    return torch.where(drawn < 0.02, 1.0, torch.where(drawn > 0.98, 0.0, x))


def _stripes(x: Tensor) -> Tensor:
    spoiled = x.clone()
    spoiled[..., ::4] *= 0.7
    return spoiled


def _blur(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, 1)


def _checks(x: Tensor) -> Tensor:
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])[None]
    return x * 0 + ((rows + columns) % 2).float()


SPOILED: dict[str, Callable[[Tensor], Tensor]] = {
    "as in training": lambda x: x,
    "noise, sigma 0.02": _noise(0.02),
    "noise, sigma 0.05": _noise(0.05),
    "noise, sigma 0.1": _noise(0.1),
    "4 % of pixels black or white": _dropouts,
    "every fourth column 30 % darker": _stripes,
    "blurred, 5 x 5": _blur,
    "a third of the contrast": lambda x: x * 0.3 + 0.35,
    "white noise": lambda x: torch.rand(x.shape, generator=_RANDOM),
    "a chess board": _checks,
}


def main() -> None:
    """Print one line for each way of spoiling."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mfg_hmoe_light")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--images", type=int, default=63)
    args = parser.parse_args()
    loaded = geomoe.load(args.model, args.scale)
    reference = loaded.reference
    if reference is None:
        raise SystemExit(f"{loaded.name} brings no reference; run geomoe calibrate first")
    files = ucmerced_files(args.data, "test")
    files = files[:: max(1, len(files) // args.images)]
    print(f"{platform.machine()}, torch {torch.__version__}; {loaded.name}, {len(files)} test images")
    print(f"threshold: {reference.quantile:.0%} of {reference.data}\n")
    print("| input | marked | gain, dB | with fallback | where marked |\n|---|---|---|---|---|")
    small = get_degradation(loaded.card.degradation)
    for name, spoil in SPOILED.items():
        marked, errors = [], np.zeros((3, 2))  # [model, fallback, bicubic] x [everywhere, where marked]
        for i, path in enumerate(files):
            low, high = degrade(read_image(path, loaded.contract.bands), args.scale, small.drawn(i))
            low, high = spoil(to_unit(low)), to_unit(high)
            with torch.inference_mode():
                ours = loaded.model(low[None])[0].clamp(0, 1)
            bicubic = interpolated(low[None], args.scale)[0].clamp(0, 1)
            unusual = (reference.ood_score(shown_rows(loaded, low)) > 1).reshape(low.shape[-2:])
            marked.append(unusual.double().mean().item())
            unusual = unusual.repeat_interleave(args.scale, 0).repeat_interleave(args.scale, 1)
            for row, result in enumerate((ours, torch.where(unusual, bicubic, ours), bicubic)):
                error = ((result - high) ** 2).double().mean(0)
                errors[row] += error.sum().item(), error[unusual].sum().item()
        print(
            f"| {name} | {np.mean(marked):.2%} | {_gain(errors[0, 0], errors[2, 0])} | "
            f"{_gain(errors[1, 0], errors[2, 0])} | {_gain(errors[0, 1], errors[2, 1])} |",
            flush=True,
        )


def _gain(error: float, bicubic: float) -> str:
    return f"{10 * math.log10(bicubic / error):+.2f}" if error and bicubic else "-"


if __name__ == "__main__":
    main()
