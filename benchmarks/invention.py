"""What super-resolution invents where nothing is: made scenes, noise, and values beyond those around them.

    python benchmarks/invention.py [--model FILE.safetensors ...] [--quick]

All weights that ship, or those that are given, beside bicubic upsampling: the largest distance from made
surfaces in levels of 255, how much stronger or weaker white noise gets, and the share of values that
lie outside the range of the 5 x 5 input pixels around them by more than 5 % of the scene's range.
"""

from __future__ import annotations

import argparse
import time

import torch

import geomoe
from geomoe.evaluation.hardware import hardware
from geomoe.evaluation.invention import MOST_ERROR, MOST_NOISE, MOST_OVERSHOOT, Invention, bicubic, invention
from geomoe.models import available_weights
from geomoe.pipeline.runner import Runner


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", help="name or file of weights; all that ship if left out")
    parser.add_argument("--quick", action="store_true", help="a sixth of the made scenes, in seconds")
    args = parser.parse_args()
    models = [geomoe.load(name) for name in args.model or available_weights()]
    found: dict[str, Invention] = {}
    for scale in sorted({model.contract.scale for model in models}):
        found[f"bicubic x{scale}"] = invention(bicubic(scale), scale, quick=args.quick)
    for model in models:
        began = time.perf_counter()
        found[model.name] = invention(
            Runner(model, torch.device("cpu")), model.contract.scale, quick=args.quick
        )
        print(f"{model.name}: {time.perf_counter() - began:.0f} s")
    print(f"{hardware()}, torch {torch.__version__}\n")
    heads = list(found)
    print(f"| | limit | {' | '.join(heads)} |\n|---|{'---|' * (len(heads) + 1)}")
    for what, limit, digits in (
        ("error", MOST_ERROR, 2),
        ("noise", MOST_NOISE, 2),
        ("overshoot", MOST_OVERSHOOT, 4),
    ):
        for row in getattr(found[heads[0]], what):
            cells = [f"{getattr(each, what)[row]:.{digits}f}" for each in found.values()]
            print(f"| {what}, {row} | {limit} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
