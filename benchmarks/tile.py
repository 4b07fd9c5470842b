"""Time and memory of one tile through a model, and the share spent in its routed upsampler.

    python benchmarks/tile.py --model mfg_hmoe --scale 4 --json
    python benchmarks/tile.py --model mfg_hmoe_light --size 288 --precisions float32 bfloat16 --threads 1

Random weights: they cost what trained ones cost. Time is the median of the runs; memory is the peak
of the whole process, Python and libraries included. Of two precisions the runs take turns, so that what else
the machine does slows both alike, and the ratio is the median of those of neighbours. A tile of
``geomoe upscale`` is 256 pixels wide, 288 with its margin.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import torch

import geomoe
from geomoe.evaluation.hardware import hardware
from geomoe.models.precision import Precision, computing_in


def measure(
    name: str, scale: int, size: int, runs: int, precisions: Sequence[Precision]
) -> dict[str, object]:
    """Run the model on one random tile; the upsampler's share is of all precisions together."""
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
    first, *others = precisions
    times: dict[Precision, list[float]] = {precision: [] for precision in precisions}

    def run(precision: Precision) -> float:
        start = time.perf_counter()
        with torch.inference_mode(), computing_in(precision, x.device):
            model(x)
        return time.perf_counter() - start

    for precision in precisions:  # warm-up
        run(precision)
    in_head.clear()
    for _ in range(runs):
        for precision in precisions:
            times[precision].append(run(precision))
    seconds = times[first]
    ratios = {
        f"{first}_over_{other}": statistics.median(
            one / two for one, two in zip(seconds, times[other], strict=True)
        )
        for other in others
    }
    return {
        "model": name,
        "scale": scale,
        "tile": size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "precision": first,
        "seconds": round(statistics.median(seconds), 4),
        "seconds_quartiles": [round(q, 4) for q in statistics.quantiles(seconds, n=4)],
        **{f"seconds_{other}": round(statistics.median(times[other]), 4) for other in others},
        **{name: round(ratio, 3) for name, ratio in ratios.items()},
        "upsampler_share": round(sum(in_head) / sum(map(sum, times.values())), 4),
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
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = measure(args.model, args.scale, args.size, args.runs, args.precisions)
    print(json.dumps(found, indent=2) if args.json else "\n".join(f"{k:<22} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
