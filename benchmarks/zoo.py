"""Every super-resolution model beside the others: parameters, multiply-adds and time of one tile.

    python benchmarks/zoo.py --json

Random weights, float32, x4, one 64 x 64 tile. Models run in turns and each twice in its turn, the second
time measured. ``per_gmac`` is time by work, beside that of a plain chain of 3x3 convolutions of 64 channels
on the same machine in the same turns (1.0): how near a model comes to what the processor can do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import UTC, datetime

import torch
from torch import Tensor, nn

import geomoe
from geomoe.evaluation.hardware import hardware
from geomoe.moe import count_flops

PLAIN = "plain 3x3 convolutions"


def gmac(model: nn.Module, x: Tensor) -> float:
    """Billions of multiply-adds on one input."""
    with torch.inference_mode():
        return count_flops(lambda: model(x)) / 2e9


def measure(names: list[str], scale: int, size: int, rounds: int) -> list[dict[str, object]]:
    """All models in turns; all of them are held, as they are measured round by round."""
    layers = [layer for _ in range(20) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
    x = torch.rand(1, 3, size, size)
    models: dict[str, tuple[nn.Module, Tensor]] = {
        PLAIN: (nn.Sequential(*layers), torch.rand(1, 64, size, size))
    }
    models |= {name: (geomoe.create_model(name, scale=scale).eval(), x) for name in names}
    work = {name: gmac(model, given) for name, (model, given) in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for _ in range(rounds):
            for name, (model, given) in models.items():
                model(given)
                began = time.perf_counter()
                model(given)
                seconds[name].append(time.perf_counter() - began)
    each = {name: statistics.median(taken) for name, taken in seconds.items()}
    base = each[PLAIN] / work[PLAIN]
    return [
        {
            "model": name,
            "parameters": sum(p.numel() for p in model.parameters()),
            "gmac": round(work[name], 1),
            "seconds": round(each[name], 3),
            "quartiles": [round(q, 3) for q in statistics.quantiles(seconds[name], n=4)],
            "per_gmac": round(each[name] / work[name] / base, 2),
        }
        for name, (model, _) in models.items()
    ]


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=geomoe.list_models())
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    found = {
        "models": measure(args.models, args.scale, args.size, args.rounds),
        "scale": args.scale,
        "tile": args.size,
        "hardware": hardware(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    if args.json:
        print(json.dumps(found, indent=2))
        return
    print("| model | parameters | GMAC | seconds | by work |")
    print("|---|---|---|---|---|")
    for row in found["models"]:
        figures = f"{row['parameters']:,} | {row['gmac']} | {row['seconds']} | {row['per_gmac']}"
        print(f"| `{row['model']}` | {figures} |")
    print(f"\n{found['hardware']}, torch {found['torch']}, {found['date']}")


if __name__ == "__main__":
    main()
