"""What --dry-run estimates of a job beside what the job takes: time, memory and disk.

    python benchmarks/reliability/budget.py [--jobs 8] [--json]

Each is a process of ``geomoe upscale`` of its own; its peak is what the system reports for it, Python and
libraries included. Printed is what was foretold over what was measured: 1 is right.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import write_scene

JOBS: tuple[dict[str, object], ...] = (
    {"model": "mfg_hmoe_light", "scale": 4, "size": 1024, "dtype": "uint8", "bands": 3},
    {"model": "mfg_hmoe_light", "scale": 2, "size": 700, "dtype": "uint16", "bands": 4, "tile": 128},
    {"model": "mfg_hmoe_light", "scale": 4, "size": 700, "dtype": "float32", "bands": 1, "tile": 64},
    {
        "model": "mfg_hmoe_light",
        "scale": 2,
        "size": 700,
        "dtype": "uint8",
        "bands": 3,
        "tile": 128,
        "memory": "700MB",
    },
    {"model": "mfg_hmoe_light", "scale": 4, "size": 900, "dtype": "int16", "bands": 3, "experts": True},
    {"model": "mfg_hmoe_light", "scale": 2, "size": 500, "dtype": "uint16", "bands": 10, "tile": 128},
    {"model": "mfg_hmoe_light", "scale": 4, "size": 600, "dtype": "uint8", "bands": 4, "tile": 32},
    {"model": "mfg_hmoe_light", "scale": 2, "size": 1500, "dtype": "uint8", "bands": 3},
)  # fmt: skip
UNITS = {"MB": 1e6, "GB": 1e9, "s": 1, "min": 60, "h": 3600}


def main() -> None:
    """Parse the arguments, foretell, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=len(JOBS))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = []
    for job in JOBS[: args.jobs]:
        with tempfile.TemporaryDirectory() as folder:
            ratios = run(Path(folder), job)
        found.append({**job, **ratios})
        if not args.json:
            print(f"{job}: {ratios}", flush=True)
    if args.json:
        print(json.dumps(found))


def run(folder: Path, job: dict[str, object]) -> dict[str, float]:
    """Foretell and do one job; what was foretold over what was measured, and the latter."""
    size, bands = int(str(job["size"])), int(str(job["bands"]))
    src = write_scene(folder / "src.tif", size, size, bands, str(job["dtype"]))
    command = [sys.executable, "-m", "geomoe.cli.main", "upscale", str(src), str(folder / "out.tif")]
    for name in ("model", "scale", "tile", "memory"):
        if name in job:
            command += [f"--{name}", str(job[name])]
    if "experts" in job:
        command += ["--experts", str(folder / "experts.tif")]
    said = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True).stdout
    told = {
        what: float(number) * UNITS[unit]
        for what, number, unit in re.findall(r"^(time|memory|disk) +about ([\d.]+) (\w+)", said, re.MULTILINE)
    }
    began = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit("geomoe upscale failed")
    files = [folder / name for name in ("out.tif", "experts.tif")]
    disk = sum(path.stat().st_size for path in files if path.exists())
    took = {"time": seconds, "memory": usage.ru_maxrss * 1024, "disk": disk}
    return {
        **{f"{what}_ratio": round(told[what] / took[what], 2) for what in took},
        "seconds": round(seconds, 1),
        "peak_gb": round(took["memory"] / 1e9, 3),
        "disk_mb": round(disk / 1e6, 1),
    }


if __name__ == "__main__":
    main()
