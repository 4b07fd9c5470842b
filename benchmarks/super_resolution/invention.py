"""What super-resolution invents where nothing is: made scenes, noise, and values beyond those around them.

    python benchmarks/super_resolution/invention.py [--data FOLDER_OF_SCENES] [--json invention.json]
    python benchmarks/super_resolution/invention.py --quick --model FILE.safetensors
        [--precision bfloat16] [--conserve]

All weights that ship, or those that are given, beside bicubic upsampling: the largest distance from made
surfaces in levels of 255; the standard deviation of white noise after over before; and the share of values
that lie outside the range of the 5 x 5 input pixels around them by more than 5 % of the scene's range, of a
made scene and of all GeoTIFFs of a folder, beside what these scenes have of it themselves. docs/benchmarks.md
has what came out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch

import geomoe
from geomoe.errors import GeomoeError
from geomoe.evaluation.hardware import hardware
from geomoe.evaluation.super_resolution.invention import (
    MOST_ERROR,
    MOST_NOISE,
    MOST_OVERSHOOT,
    Invention,
    bicubic,
    by_model,
    invention,
    own_overshoot,
    scene_overshoot,
)
from geomoe.files import write_text
from geomoe.models import LoadedModel, available_weights
from geomoe.models.precision import Precision


def measure(
    models: list[LoadedModel], scenes: list[Path], quick: bool, precision: Precision, keep: bool
) -> dict[str, Invention]:
    """By name: bicubic upsampling for each scale, then the models."""
    found = {
        f"bicubic x{scale}": invention(bicubic(scale), scale, quick=quick)
        for scale in sorted({model.contract.scale for model in models})
    }
    for model in models:
        began, scale = time.perf_counter(), model.contract.scale
        enlarge = by_model(model, "cpu", precision, keep_means=keep)
        mine = found[model.name] = invention(enlarge, scale, quick=quick)
        for scene in scenes:
            try:
                shares = scene_overshoot(scene, model=model, scale=scale, precision=precision, conserve=keep)
            except GeomoeError as error:
                print(f"{scene.name}: left out, {error}", flush=True)
                continue
            mine.overshoot[scene.name], found[f"bicubic x{scale}"].overshoot[scene.name] = shares
            own = found[f"bicubic x{scale}"].own
            mine.own[scene.name] = own[scene.name] = own.get(scene.name) or own_overshoot(scene, scale)
        print(f"{model.name}: {time.perf_counter() - began:.0f} s", flush=True)
    return found


def table(found: dict[str, Invention]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield f"| | at most | {' | '.join(found)} |"
    yield f"|---|{'---|' * (len(found) + 1)}"
    first = next(iter(found.values()))
    for kind in first.error:
        yield _row(
            f"{kind}: worst error, levels", MOST_ERROR, [f"{f.error[kind]:.2f}" for f in found.values()]
        )
    for sigma in first.noise:
        yield _row(f"noise of {sigma} levels", MOST_NOISE, [f"{f.noise[sigma]:.2f}" for f in found.values()])
    for scene in first.overshoot:
        shares = [f"{f.overshoot[scene]:.3%}" if scene in f.overshoot else "-" for f in found.values()]
        yield _row(f"{scene}: overshoot", f"own + {MOST_OVERSHOOT:.1%}", shares)
        own = [f"{f.own[scene]:.3%}" if scene in f.own else "-" for f in found.values()]
        yield _row(f"{scene}: its own", "", own)


def _row(head: str, limit: object, cells: list[str]) -> str:
    return f"| {head} | {limit} | {' | '.join(cells)} |"


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", help="name or file of weights; all that ship if left out")
    parser.add_argument("--data", type=Path, help="folder of scenes, .tif")
    parser.add_argument("--quick", action="store_true", help="a tenth of the made scenes, in seconds")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--conserve", action="store_true", help="keep the means of input pixels")
    parser.add_argument("--json", type=Path, help="also write everything here")
    args = parser.parse_args()
    scenes = sorted(args.data.glob("*.tif")) if args.data else []
    if args.data and not scenes:
        raise SystemExit(f"{args.data} holds no .tif")
    models = [geomoe.load(name) for name in args.model or available_weights()]
    found = measure(models, scenes, args.quick, args.precision, args.conserve)
    ran = {
        "hardware": hardware(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "precision": args.precision,
        "quick": args.quick,
        "conserve": args.conserve,
    }
    print(", ".join(f"{key} {value}" for key, value in ran.items()), "", *table(found), sep="\n")
    if args.json:
        results = {name: each.as_dict() for name, each in found.items()}
        write_text(args.json, f"{json.dumps({**ran, 'results': results}, indent=2)}\n")


if __name__ == "__main__":
    main()
