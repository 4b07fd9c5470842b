"""Time and memory of one tile through a model, and the share spent in its routed upsampler.

    python benchmarks/tile.py --model mfg_hmoe --scale 4 --json

Random weights: they cost what trained ones cost. Time is the median of the runs; memory is the peak
of the whole process, Python and libraries included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from datetime import UTC, datetime

import torch

import geomoe
from geomoe.evaluation.hardware import hardware


def measure(name: str, scale: int, size: int, runs: int) -> dict[str, object]:
    """Run the model on one random tile."""
    torch.manual_seed(0)
    model = geomoe.create_model(name, scale=scale).eval()
    x = torch.rand(1, 3, size, size)
    in_head: list[float] = []
    began = 0.0

    def before(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(*_: object) -> None:
        in_head.append(time.perf_counter() - began)

    model.upsample.register_forward_pre_hook(before)
    model.upsample.register_forward_hook(after)
    seconds = []
    with torch.inference_mode():
        model(x)  # warm-up
        in_head.clear()
        for _ in range(runs):
            start = time.perf_counter()
            model(x)
            seconds.append(time.perf_counter() - start)
    return {
        "model": name,
        "scale": scale,
        "tile": size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(statistics.median(seconds), 4),
        "seconds_quartiles": [round(q, 4) for q in statistics.quantiles(seconds, n=4)],
        "upsampler_share": round(sum(in_head) / sum(seconds), 4),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "runs": runs,
        "hardware": hardware(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mfg_hmoe", choices=geomoe.list_models())
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--size", type=int, default=64, help="side of the tile in input pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = measure(args.model, args.scale, args.size, args.runs)
    print(json.dumps(found, indent=2) if args.json else "\n".join(f"{k:<18} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
