"""What the attacks share: kinds of them by name, tries of each, and one line of figures at the end."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

Tries = Iterator[str]
"""What went wrong in each try; nothing if it is empty."""
Kind = Callable[[Path, argparse.Namespace, np.random.Generator], Tries]
"""Makes the tries of a kind, in a folder of its own."""


def attack(kinds: Mapping[str, Kind], description: str | None, *, tries: str, every: str) -> None:
    """Parse the arguments, attack, print; ends with status 1 where a try failed.

    Args:
        kinds: by name.
        description: of the script.
        tries: what the option of that name means.
        every: likewise.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=10, help=tries)
    parser.add_argument("--kinds", default=",".join(kinds))
    parser.add_argument("--every", type=int, default=1, help=every)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    counts: dict[str, int] = {}
    seconds, failures = 0.0, 0
    for kind in args.kinds.split(","):
        with tempfile.TemporaryDirectory() as name:
            count, began = 0, time.monotonic()
            for wrong in kinds[kind](Path(name), args, np.random.default_rng(args.seed)):
                # The first has the time in which all is made ready.
                seconds = max(seconds, time.monotonic() - began) if count else seconds
                count, failures = count + 1, failures + bool(wrong)
                if wrong or not args.json:
                    print(f"{kind} {count}: {time.monotonic() - began:.1f} s {wrong}", flush=True)
                began = time.monotonic()
            counts[kind] = count
    found = {
        "tries": sum(counts.values()),
        "failures": failures,
        **counts,
        "worst_seconds": round(seconds, 1),
        "worst_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1000,  # kB on Linux
    }
    print(json.dumps(found) if args.json else found)
    if failures:
        raise SystemExit(1)
