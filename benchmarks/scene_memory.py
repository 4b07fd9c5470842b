"""Peak memory of ``geomoe upscale`` on scenes of two sizes, which must not depend on the size; and its time.

    python benchmarks/scene_memory.py --json
    python benchmarks/scene_memory.py --sizes 1024 --precisions float32 bfloat16 --runs 5 --json

Each scene is random smooth uint8 with three bands. Every run is a process of its own, and its peak is
what the operating system reports for it, Python and libraries included. Of two precisions the runs are
neighbours, in turns the one and the other first, and the ratio is the median of those of neighbours, of the
time that cores spent: what else the machine does shows least there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.windows import Window

from tile import hardware

BLOCK = 512


def write_scene(path: Path, side: int) -> None:
    """A square scene, written block by block."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "tiled": True}
    grid = rasterio.Affine(10, 0, 500_000, 0, -10, 4_000_000)
    with rasterio.open(path, "w", **profile, crs="EPSG:32618", transform=grid, compress="deflate") as file:
        for y in range(0, side, BLOCK):
            for x in range(0, side, BLOCK):
                wave = np.add.outer(np.sin(np.arange(y, y + BLOCK) / 9), np.cos(np.arange(x, x + BLOCK) / 7))
                block = 120 + 40 * wave + rng.normal(0, 12, (3, BLOCK, BLOCK))
                file.write(block.clip(1, 255).astype(np.uint8), window=Window(x, y, BLOCK, BLOCK))


class Run(NamedTuple):
    """One scene: the peak, the time on the wall, and that of all cores together."""

    peak_gb: float
    seconds: float
    core_seconds: float


def run(side: int, scale: int, model: str, precision: str, folder: Path) -> Run:
    """Upscale one scene."""
    source, target = folder / f"{side}.tif", folder / f"{side}_out.tif"
    write_scene(source, side)
    command = [sys.executable, "-m", "geomoe.cli.main", "upscale", str(source), str(target)]
    command += ["--scale", str(scale), "--model", model, "--precision", precision]
    began = time.perf_counter()
    # What the command says goes to stderr: stdout is for the figures.
    said = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=said)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"geomoe upscale failed on {side} x {side}")
    for made in folder.iterdir():  # the items beside it, too
        made.unlink()
    seconds = time.perf_counter() - began
    return Run(usage.ru_maxrss * 1024 / 1e9, seconds, usage.ru_utime + usage.ru_stime)


def measure(side: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All runs on one size: of each precision the peak, median times, and scenes for an hour of a core."""
    found: dict[str, list[Run]] = {precision: [] for precision in args.precisions}
    for number in range(args.runs):
        for precision in args.precisions[:: 1 if number % 2 else -1]:
            found[precision].append(run(side, args.scale, args.model, precision, folder))
    figures: dict[str, Any] = {
        precision: {
            "peak_gb": round(max(each.peak_gb for each in runs), 3),
            "seconds": round(statistics.median(each.seconds for each in runs), 1),
            "core_seconds": round(core := statistics.median(each.core_seconds for each in runs), 1),
            "scenes_per_core_hour": round(3600 / core, 1),
        }
        for precision, runs in found.items()
    }
    first, *others = args.precisions
    for other in others:
        pairs = zip(found[first], found[other], strict=True)
        ratio = statistics.median(one.core_seconds / two.core_seconds for one, two in pairs)
        figures[f"{first}_over_{other}"] = round(ratio, 3)
    return figures


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--model", default="mfg_hmoe_light")
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--runs", type=int, default=1, help="of each size in each precision")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if any(side < BLOCK or side % BLOCK for side in args.sizes):
        parser.error(f"--sizes: expected multiples of {BLOCK}")
    with tempfile.TemporaryDirectory() as folder:
        runs = {side: measure(side, args, Path(folder)) for side in args.sizes}
    first = args.precisions[0]
    peaks = {side: figures[first]["peak_gb"] for side, figures in runs.items()}
    found = {
        "model": args.model,
        "scale": args.scale,
        "scenes": {f"{side}x{side}x3 uint8": figures for side, figures in runs.items()},
        "largest_over_smallest": round(peaks[max(peaks)] / peaks[min(peaks)], 3),
        "runs": args.runs,
        "hardware": hardware(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(json.dumps(found, indent=2) if args.json else "\n".join(f"{k:<22} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
