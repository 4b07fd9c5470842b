"""Memory of a job as its plan estimates it, beside the peak that the operating system reports.

    python benchmarks/planned_memory.py --json

Each case is a process of its own with one worker, Python and libraries included, on random scenes of 8-bit
values: weights that ship, and networks for maps of classes with random weights, of which the size of features
does not depend.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from tile import hardware

CASES = {
    "mfg_hmoe_light x2": ("mfg_hmoe_light", {"scale": 2}),
    "mfg_hmoe_light x4": ("mfg_hmoe_light", {"scale": 4}),
    "edsr x4": ("edsr", {"scale": 4}),
    "haunet_s x4": ("haunet_s", {"scale": 4}),
    "swinir_light x2": ("swinir_light", {"scale": 2}),
    "hat x4": ("hat", {"scale": 4}),
    "mamba_moe": ("mamba_moe", {"classes": ("field", "water", "wood"), "bands": 4}),
    "unet": ("unet", {"classes": ("field", "water", "wood"), "bands": 4}),
    "unet_spatial_moe": ("unet_spatial_moe", {"classes": ("field", "water", "wood"), "bands": 4}),
    "unet_spatial_moe, 200 bands": ("unet_spatial_moe", {"classes": tuple("abcdefghijklmnop"), "bands": 200}),
}


def weights(name: str, options: dict[str, Any], folder: Path) -> str:
    """The name of weights that ship, or a file of random ones."""
    from geomoe.models import available_weights, create_model
    from geomoe.models.weights import Card, save

    if f"{name}_x{options.get('scale')}" in available_weights():
        return name
    model = create_model(name, **options)
    task = "segmentation" if "classes" in options else "super_resolution"
    said = {"radiometry": "unit", "degradation": "", "protocol": "", "commit": "", "date": "", "licence": ""}
    card = Card(model=name, config=asdict(model.config), data={}, recipe={}, scores={}, task=task, **said)  # type: ignore[arg-type]
    save(folder / f"{name}.safetensors", model, card)
    return str(folder / f"{name}.safetensors")


def write_scene(path: Path, bands: int, side: int) -> None:
    """A square scene of noise."""
    profile: dict[str, Any] = {"driver": "GTiff", "width": side, "height": side, "count": bands}
    grid = rasterio.Affine(10, 0, 500_000, 0, -10, 4_000_000)
    rng = np.random.default_rng(0)
    profile |= {
        "dtype": "uint8",
        "tiled": True,
        "photometric": "minisblack",
        "crs": "EPSG:32618",
        "transform": grid,
    }
    with rasterio.open(path, "w", **profile) as file:
        for band in range(1, bands + 1):
            file.write(rng.integers(1, 255, (side, side), np.uint8), band)


def one(scene: Path, model: str, scale: int | None) -> dict[str, float]:
    """Plan a job and do it, in this process; GB."""
    from geomoe.pipeline import Request
    from geomoe.pipeline.run import carry_out

    target = scene.with_name("out.tif")
    plan = carry_out(Request(scene, target, model=model, scale=scale)).plan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "planned_gb": round(plan.memory_bytes / 1e9, 3),
        "peak_gb": round(peak / 1e9, 3),
        "planned_over_peak": round(plan.memory_bytes / peak, 2),
    }


def measured(name: str, options: dict[str, Any], side: int) -> dict[str, float]:
    """One case in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        write_scene(scene, options.get("bands", 3), side)
        model = weights(name, options, Path(folder))
        scale = str(options.get("scale", ""))
        command = [sys.executable, __file__, "--one", str(scene), model, scale]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--side", type=int, default=512, help="of the scene, pixels")
    parser.add_argument("--one", nargs=3, metavar=("SCENE", "MODEL", "SCALE"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.one:
        scene, model, scale = args.one
        print(json.dumps(one(Path(scene), model, int(scale) if scale else None)))
        return
    found = {case: measured(*CASES[case], args.side) for case in args.cases}
    about = {"hardware": hardware(), "date": datetime.now(UTC).date().isoformat()}
    if args.json:
        print(json.dumps({"cases": found, "side": args.side, **about}, indent=2))
        return
    for case, figures in found.items():
        print(f"{case:<22} " + "  ".join(f"{name} {value}" for name, value in figures.items()))
    print("  ".join(map(str, about.values())))


if __name__ == "__main__":
    main()
