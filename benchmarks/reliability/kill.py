"""Jobs that are killed at random moments and begun again: is the result that of a job left alone?

    python benchmarks/reliability/kill.py [--jobs 30] [--kills 3] [--seed 0] [--json]

Each job upscales a made scene, with its map of experts, in a process that gets SIGKILL ``--kills`` times: a
third of them after a random time, a third at a random tile, a third while the files are finished, checked and
put in place. Then it is left to end. Jobs differ in data type, nodata and size of tiles; every new process of
a job takes its tiles in another order, with one thread or two. What is compared is the SHA-256 of both files,
of the STAC items beside them and of the model's item with those of a job that was left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import fork, sha, tiny, write_scene

from geomoe.pipeline import Tiles, upscale

MADE = ("out.tif", "out.stac.json", "experts.tif", "experts.stac.json", "tiny.tiny.stac.json")
DTYPES = ("uint8", "uint16", "int16", "float32")


def main() -> None:
    """Parse the arguments, kill, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--kills", type=int, default=3, help="for each job")
    parser.add_argument("--size", type=int, default=220, help="side of a scene in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    totals = {"jobs": args.jobs, "kills": 0, "kills_while_tiles": 0, "kills_while_finishing": 0,
              "tiles_kept": 0, "equal": 0, "left_over": 0}  # fmt: skip
    for number in range(args.jobs):
        with tempfile.TemporaryDirectory() as folder:
            found = run(Path(folder), number, args.kills, args.size, rng)
        for key, value in found.items():
            totals[key] += value
        if not args.json:
            print(f"job {number}: {found}")
    print(json.dumps(totals) if args.json else totals)
    if totals["equal"] != args.jobs or totals["left_over"]:
        raise SystemExit(1)


def run(folder: Path, number: int, kills: int, size: int, rng: np.random.Generator) -> dict[str, int]:
    """One job beside the same one left alone: what happened to it."""
    src = write_scene(folder / "src.tif", size, size - 7, dtype=DTYPES[number % 4], seed=number,
                      **({"nodata": 0} if number % 3 == 0 else {}))  # fmt: skip
    tile = (16, 20, 32)[number % 3]
    tiles = len(Tiles(size, size - 7, tiny().contract.tiling, tile))
    whole, cut = folder / "whole", folder / "cut"
    whole.mkdir()
    cut.mkdir()
    began = time.monotonic()
    _wait(_start(src, whole, tile, range(tiles), 1))
    usual = time.monotonic() - began

    def same() -> bool:
        return all(sha(cut / n) == sha(whole / n) for n in MADE)

    equal = True
    counts = {"kills": 0, "kills_while_tiles": 0, "kills_while_finishing": 0, "tiles_kept": 0}
    while counts["kills"] < kills:
        child = _start(src, cut, tile, rng.permutation(tiles), 1 + int(rng.integers(2)))
        journal = cut / ".out.tif.geomoe" / "journal"
        if counts["kills"] % 3 == 0:
            time.sleep(float(rng.uniform(0.02, 1)) * usual)
        else:
            wanted = tiles if counts["kills"] % 3 == 2 else int(rng.integers(tiles))
            while lines_of(journal) < wanted and not _ended(child):
                time.sleep(0.001)
            time.sleep(float(rng.uniform(0, 0.1)) * usual)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if status and not os.WIFSIGNALED(status):
            raise SystemExit("a job that was begun again refused to go on")
        counts["kills"] += os.WIFSIGNALED(status)
        if (journal.parent / "job.json").exists():
            lines = lines_of(journal)
            counts["kills_while_tiles"] += 0 < lines < tiles
            counts["kills_while_finishing"] += lines >= tiles
            counts["tiles_kept"] += lines
        elif (cut / "out.tif").exists():  # it had ended before
            equal &= same()
            for name in MADE:
                (cut / name).unlink()
    _wait(_start(src, cut, tile, rng.permutation(tiles), 1))
    equal &= same()
    return {**counts, "equal": int(equal), "left_over": len(list(cut.iterdir())) - len(MADE)}


def lines_of(journal: Path) -> int:
    """Of tiles that are done."""
    try:
        return sum(bool(line) for line in journal.read_text().split("\n"))
    except FileNotFoundError:
        return 0


def _ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _start(src: Path, out: Path, tile: int, order: Sequence[int], threads: int) -> int:
    def work() -> None:
        torch.set_num_threads(threads)
        upscale(
            src, out / "out.tif", model=tiny(tile=tile), scale=2, experts=out / "experts.tif", order=order
        )

    return fork(work)


def _wait(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"a job that was left alone ended with status {status}")


if __name__ == "__main__":
    main()
