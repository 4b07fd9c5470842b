"""How training of the light model starts, with the last convolution as it is and as nn.Conv2d would have it.

    python benchmarks/super_resolution/start.py --data FOLDER_OF_UCMERCED

Prints L1 over that of bicubic upsampling, mean of 40 steps, on a tenth of the training images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

import geomoe
from geomoe.data.images import read_image
from geomoe.data.super_resolution.degradation import get_degradation, interpolated
from geomoe.data.super_resolution.pairs import ImagePairs, PatchStream
from geomoe.data.ucmerced import ucmerced_files

SCALE, PATCH, BATCH, WINDOW = 4, 24, 8, 40


def train(pairs: ImagePairs, steps: int, factor: float) -> list[float]:
    """L1 over bicubic's, a mean for every 40 steps; the last convolution starts ``factor`` times larger."""
    torch.manual_seed(0)
    model = geomoe.create_model("mfg_hmoe_light", scale=SCALE)
    with torch.no_grad():
        for parameter in model.upsample.last.parameters():
            parameter *= factor
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.9, 0.99))
    stream = PatchStream(pairs, PATCH, SCALE, seed=0, start=0, length=steps * BATCH)
    ratios = []
    for step in range(steps):
        samples = [stream[step * BATCH + i] for i in range(BATCH)]
        low, high = (torch.stack([sample[key] for sample in samples]) for key in ("image", "target"))
        with torch.autocast("cpu", torch.bfloat16):
            result = model(low)
        loss = F.l1_loss(result.float(), high)
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 50)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        ratios.append(float(loss.detach() / F.l1_loss(interpolated(low, SCALE), high)))
    return [sum(ratios[i : i + WINDOW]) / WINDOW for i in range(0, steps, WINDOW)]


def main() -> None:
    """Parse the arguments, train twice, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=160)
    args = parser.parse_args()
    paths = ucmerced_files(args.data, "fit")[::10]
    pairs = ImagePairs([read_image(path) for path in paths], SCALE, get_degradation("bilinear"))
    ours, plain = (train(pairs, args.steps, factor) for factor in (1.0, 100.0))
    print("step   near zero   as nn.Conv2d")
    for i, (a, b) in enumerate(zip(ours, plain, strict=True), 1):
        print(f"{i * WINDOW:4d}   {a:9.3f}   {b:12.3f}")


if __name__ == "__main__":
    main()
