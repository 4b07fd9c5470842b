"""Peak memory of ``geomoe upscale`` on scenes from 4 megapixels to a whole Sentinel-2 tile.

    python benchmarks/reliability/memory.py [--sides 2048,8192,16384] [--sentinel2] [--json]

Each scene is made, 16-bit with one band, and upscaled to twice its side by a tiny model, in a process of its
own; its peak is what the system reports for it, Python and libraries included. ``--sentinel2`` does 10980 x
10980 pixels of four bands.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
from common import write_scene

from geomoe import create_model
from geomoe.models.weights import Card, save


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", default="2048,8192,16384")
    parser.add_argument("--sentinel2", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    jobs = [(10980, 4)] if args.sentinel2 else [(int(side), 1) for side in args.sides.split(",")]
    found = []
    with tempfile.TemporaryDirectory() as name:
        weights = Path(name) / "tiny.safetensors"
        torch.manual_seed(0)
        model = create_model("edsr", scale=2, width=4, blocks=1)
        options = asdict(model.config)  # type: ignore[call-overload]
        save(weights, model, Card("edsr", options, "unit", {}, "", {}, "", {}, "", "", ""))
        for side, bands in jobs:
            found.append(run(Path(name), weights, side, bands))
            if not args.json:
                print(found[-1], flush=True)
    if args.json:
        print(json.dumps(found))


def run(folder: Path, weights: Path, side: int, bands: int) -> dict[str, float]:
    """Upscale one scene; its peak in GB and its time in seconds."""
    src = write_scene(folder / "src.tif", side, side, bands, compress="deflate")
    command = [sys.executable, "-m", "geomoe.cli.main", "upscale", str(src), str(folder / "out.tif")]
    command += ["--scale", "2", "--model", str(weights), "--overwrite", "--tile", "256"]
    began = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"geomoe upscale failed on {side} x {side}")
    return {
        "side": side,
        "bands": bands,
        "output_gb": round((folder / "out.tif").stat().st_size / 1e9, 3),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
        "seconds": round(time.perf_counter() - began, 1),
    }


if __name__ == "__main__":
    main()
