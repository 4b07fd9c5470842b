"""Time of one training step: forward, backward, optimiser, moving average, and the cutting of patches.

    python benchmarks/step.py --model mfg_hmoe_light --scale 4 --patch 32 --batch 4 --precision bf16 --json

What ``geomoe fit`` does in a step, on random images of UCMerced's size. The median of the steps after a
warm-up; with ``--compile``, whose first steps compile, after a longer one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from datetime import UTC, datetime

import torch

import geomoe
from geomoe.data.super_resolution.degradation import get_degradation
from geomoe.data.super_resolution.pairs import ImagePairs, PatchStream
from geomoe.tasks.compiled import compile_blocks
from geomoe.tasks.super_resolution_losses import l1
from tile import hardware


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Train on random patches for some steps."""
    torch.manual_seed(0)
    model = geomoe.create_model(args.model, scale=args.scale).to(memory_format=torch.channels_last)
    if args.compile:
        compile_blocks(model)
    optimiser = torch.optim.Adam(model.parameters(), 2e-4, betas=(0.9, 0.99))
    average = [p.detach().clone() for p in model.parameters()]
    images = [torch.randint(256, (3, 256, 256), dtype=torch.uint8) for _ in range(16)]
    pairs = ImagePairs(images, args.scale, get_degradation("bilinear"))
    warm = 10 if args.compile else 3
    stream = PatchStream(pairs, args.patch, args.scale, 0, 0, (warm + args.steps) * args.batch)
    half = torch.autocast("cpu", torch.bfloat16) if args.precision == "bf16" else contextlib.nullcontext()
    seconds, cutting = [], []
    for step in range(warm + args.steps):
        began = time.perf_counter()
        cut = [stream[step * args.batch + i] for i in range(args.batch)]
        low, high = (torch.stack([sample[key] for sample in cut]) for key in ("image", "target"))
        ready = time.perf_counter()
        with half:
            result = model(low.to(memory_format=torch.channels_last))
        optimiser.zero_grad()
        l1(result, high).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.001)
        cutting.append(ready - began)
        seconds.append(time.perf_counter() - began)
    return {
        "model": args.model,
        "scale": args.scale,
        "patch": args.patch,
        "batch": args.batch,
        "precision": args.precision,
        "compiled": args.compile,
        "seconds": round(statistics.median(seconds[warm:]), 4),
        "seconds_quartiles": [round(q, 4) for q in statistics.quantiles(seconds[warm:], n=4)],
        "cutting_seconds": round(statistics.median(cutting[warm:]), 4),
        "steps": args.steps,
        "hardware": hardware(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mfg_hmoe_light")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = measure(args)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for key, value in found.items():
        print(f"{key:<18} {value}")


if __name__ == "__main__":
    main()
