"""What ``geomoe upscale`` runs on the demo's scene: functions, files, passes of the model before its tiles.

    python benchmarks/way.py --json

Two runs, plain and with ``--experts --reliability``, each in two processes of its own. In one of them Python
tells of every function of geomoe that is called, and torch of every pass of the model and its size; the other
one gives time and peak memory, as the operating system reports them, Python and libraries included.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import geomoe
from tile import hardware

ROOT = Path(geomoe.__file__).parent
SCENE = Path(__file__).parents[1] / "examples" / "data" / "sentinel2_l1c.tif"


def watched(arguments: list[str]) -> dict[str, int]:
    """Run the command line in this process, counting."""
    import torch
    from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

    from geomoe.cli.main import cli
    from geomoe.pipeline import plan_scene
    from geomoe.raster.stac import footprint

    calls: Counter[CodeType] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        # Not what a module or a class does while it is imported, nor comprehensions.
        named = code.co_flags & inspect.CO_NEWLOCALS and not code.co_name.startswith("<")
        if event == "call" and named and code.co_filename.startswith(str(ROOT)):
            calls[code] += 1

    depth = threading.local()
    passes = 0

    def enter(*_: object) -> None:
        nonlocal passes
        depth.now = getattr(depth, "now", 0) + 1
        passes += depth.now == 1

    def leave(*_: object) -> None:
        depth.now -= 1

    # Only a module that no other one called is a model.
    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    threading.setprofile(note)
    sys.setprofile(note)
    cli.main(args=arguments, standalone_mode=False)
    sys.setprofile(None)
    threading.setprofile(None)
    for hook in hooks:
        hook.remove()
    torch.set_num_threads(1)
    tiles = plan_scene(arguments[1], Path(arguments[2]).with_name("other.tif")).passes
    return {
        "functions": len(calls),
        "files": len({code.co_filename for code in calls}),
        "calls": calls.total(),
        "passes_before_the_first_tile": passes - tiles,
        "footprints": calls[footprint.footprint.__code__],
    }


def measured(arguments: list[str]) -> dict[str, float]:
    """Run the command line in a process of its own: time on the wall and peak memory."""
    command = [sys.executable, "-m", "geomoe.cli.main", *arguments]
    began = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit("geomoe upscale failed")
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "core_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024, 1),
    }


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", type=Path, default=SCENE)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--watched", nargs="+", help=argparse.SUPPRESS)  # what this asks of itself
    args, rest = parser.parse_known_args()
    if args.watched:
        print(json.dumps(watched([*args.watched, *rest])))
        return
    found: dict[str, Any] = {}
    for name, maps in {"plain": (), "maps": ("experts", "reliability")}.items():
        found[name] = {}
        for run in ("measured", "watched"):
            with tempfile.TemporaryDirectory() as folder:
                options = [word for each in maps for word in (f"--{each}", f"{folder}/{each}.tif")]
                arguments = ["upscale", str(args.scene), f"{folder}/out.tif", *options]
                if run == "measured":
                    found[name] |= measured(arguments)
                    found[name]["bytes"] = sum(file.stat().st_size for file in Path(folder).iterdir())
                else:
                    command = [sys.executable, __file__, "--watched", *arguments]
                    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    found[name] |= json.loads(said.splitlines()[-1])
    found["hardware"] = hardware()
    print(json.dumps(found, indent=2) if args.json else "\n".join(f"{k:<9} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
