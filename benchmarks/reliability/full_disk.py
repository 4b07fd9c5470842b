"""A disk that is full, at many points of a job: an error each time, and nothing at the target.

    python benchmarks/reliability/full_disk.py [--points 20] [--limit] [--json]

Each job upscales a made scene, with its map of experts and items, into a file system of its own, a tmpfs of
a part of what the job needs; the check of free space beforehand is told a lie, as if the disk filled later.
Every point is tried with GDAL's threads asked for in the environment, and without. One must be root for that;
else, or with ``--limit``, it is files that may not grow beyond a part of what the largest one needs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from common import fork, tiny, write_scene

from geomoe.errors import GeomoeError
from geomoe.pipeline import upscale

SIDE, SCALE = 400, 2


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--limit", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    totals = {"jobs": 0, "errors": 0, "wrong": 0}
    with tempfile.TemporaryDirectory() as name:
        src = write_scene(Path(name) / "src.tif", SIDE, SIDE - 13, nodata=0)
        room = limited if args.limit or not may_mount(Path(name)) else mounted
        totals = {"by": room.__name__, **totals}
        need = measure(src)[room.__name__]
        for threads in (None, "ALL_CPUS"):
            for point in range(args.points):
                limit = int(need * point / args.points)
                folder = Path(name) / "out"
                folder.mkdir()
                with room(folder, limit) as setup:
                    status = attempt(src, folder, threads, setup)
                    left = sorted(path.name for path in folder.iterdir() if not path.name.endswith(".geomoe"))
                shutil.rmtree(folder)
                right = status == 3 and not left
                totals["jobs"] += 1
                totals["errors" if right else "wrong"] += 1
                if not args.json:
                    print(f"{limit} bytes, threads {threads}: status {status}, left {left}")
    print(json.dumps(totals) if args.json else totals)
    if totals["wrong"]:
        raise SystemExit(1)


def measure(src: Path) -> dict[str, int]:
    """What a job that is not hindered takes: bytes of its largest file, and of all its files at once."""
    with tempfile.TemporaryDirectory() as name:
        if status := attempt(src, Path(name), None, lambda: None):
            raise SystemExit(f"a job that was not hindered ended with status {status}")
        finished = sum(path.stat().st_size for path in Path(name).iterdir())
    with rasterio.open(src) as scene:
        pixels = scene.width * scene.height * scene.count * 2
    blocks = math.prod(-(-side * SCALE // 256) * 256 for side in (scene.width, scene.height))
    return {"limited": blocks * scene.count * 2, "mounted": pixels * SCALE**2 + finished}


def may_mount(folder: Path) -> bool:
    """Whether this process may mount file systems."""
    try:
        with mounted(folder, 4096):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def attempt(src: Path, folder: Path, threads: str | None, setup: Callable[[], None]) -> int:
    """Status of a job: 0 done, 3 our error."""

    def work() -> None:
        if threads is not None:
            os.environ["GDAL_NUM_THREADS"] = threads
        setup()
        try:
            upscale(
                src, folder / "out.tif", model=tiny(SCALE, 64), scale=SCALE, experts=folder / "experts.tif"
            )
        except GeomoeError:
            os._exit(3)

    _, status = os.waitpid(fork(work), 0)
    return os.waitstatus_to_exitcode(status)


@contextmanager
def limited(_: Path, limit: int) -> Iterator[Callable[[], None]]:
    """Files of the process that calls what is given may not become larger."""
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@contextmanager
def mounted(folder: Path, limit: int) -> Iterator[Callable[[], None]]:
    """The folder is a file system of so many bytes."""
    size = f"size={max(limit, 4096)}"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True, capture_output=True
    )
    try:
        yield lambda: None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


if __name__ == "__main__":
    main()
