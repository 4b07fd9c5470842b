"""Peak memory of ``geomoe upscale`` on scenes of two sizes: it must not depend on the size.

    python benchmarks/scene_memory.py --json

Each scene is random smooth uint8 with three bands. Every run is a process of its own, and its peak is
what the operating system reports for it, Python and libraries included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

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


def run(side: int, scale: int, model: str, folder: Path) -> dict[str, float]:
    """Upscale one scene; its peak in GB and its time in seconds."""
    source, target = folder / f"{side}.tif", folder / f"{side}_out.tif"
    write_scene(source, side)
    command = [sys.executable, "-m", "geomoe.cli.main", "upscale", str(source), str(target)]
    command += ["--scale", str(scale), "--model", model]
    began = time.perf_counter()
    # What the command says goes to stderr: stdout is for the figures.
    said = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=said)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"geomoe upscale failed on {side} x {side}")
    source.unlink()
    target.unlink()
    return {
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--model", default="mfg_hmoe_light")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if any(side < BLOCK or side % BLOCK for side in args.sizes):
        parser.error(f"--sizes: expected multiples of {BLOCK}")
    with tempfile.TemporaryDirectory() as folder:
        runs = {side: run(side, args.scale, args.model, Path(folder)) for side in args.sizes}
    found = {
        "model": args.model,
        "scale": args.scale,
        "scenes": {f"{side}x{side}x3 uint8": figures for side, figures in runs.items()},
        "largest_over_smallest": round(runs[max(runs)]["peak_gb"] / runs[min(runs)]["peak_gb"], 3),
        "hardware": hardware(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(json.dumps(found, indent=2) if args.json else "\n".join(f"{k:<22} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
