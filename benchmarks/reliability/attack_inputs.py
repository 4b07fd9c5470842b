"""Inputs that want memory, time, other files or the terminal: what do commands take, and what do they say?

    python benchmarks/reliability/attack_inputs.py [--every 1] [--kinds budget,grids,...] [--json]

Each try is a command in a process of its own. It has to end within its time and memory, as a result or in
our one line of error; no pipe or address that an input names may be opened, and nothing that a terminal
would obey may be written. ``--every 10`` takes each tenth try of every kind.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from attack_cases import Case, budgets, escapes, grids, pipes, promises
from common import fork, write_scene
from hostile import canary, remove

import geomoe.pipeline  # noqa: F401  so that children need no imports
from geomoe import create_model
from geomoe.cli.main import main as command_line
from geomoe.models.weights import Card, save
from geomoe.pipeline.memory import forget_peak, peak_memory

GROWTH = 1500 * 2**20
"""Bytes that a process may grow by: two blocks of the largest size, and the arrays of a sample."""
WAIT = 5
"""Times as long as its seconds of a processor a try may take by the clock: others want the machine, too."""
CAP = 6 * 2**30
"""Bytes of address space that it is given, so that one that fails does not take the machine with it."""


@dataclass(frozen=True)
class Outcome:
    """Of one try.

    Attributes:
        status: -9 if it had to be killed.
        said: on standard output and error.
        peak, growth: the most bytes that it took, and how many more than at its beginning.
        seconds: of a processor.
    """

    status: int
    said: str
    peak: int
    growth: int
    seconds: float


def main() -> None:
    """Parse the arguments, try everything, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--kinds", default="budget,memory,grids,pipes,escapes,environment")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: Counter[str] = Counter(tries=0, failures=0, connections=0)
    worst = {"seconds": 0.0, "growth_mb": 0}
    with canary() as (port, count), tempfile.TemporaryDirectory() as name:
        good, weights = write_scene(Path(name) / "good.tif", 20, 20), Path(name) / "tiny.safetensors"
        model = create_model("edsr", scale=2, width=4, blocks=1)
        card = Card("edsr", asdict(model.config), "unit", {}, "", {}, "", {}, "", "", "")  # type: ignore[call-overload]
        save(weights, model, card)
        before = count()
        for kind, case in chosen(args.kinds.split(","), f"127.0.0.1:{port}", args.every):
            folder = Path(name) / "case"
            folder.mkdir()
            before = count()
            outcome = attempt(case.build(folder, good, weights), folder, case.seconds)
            fault = judged(case, outcome) or ("it connected" if count() > before else "")
            found.update({"tries": 1, kind: 1, "failures": bool(fault), "connections": count() - before})
            worst["seconds"] = max(worst["seconds"], round(outcome.seconds, 1))
            worst["growth_mb"] = max(worst["growth_mb"], outcome.growth >> 20)
            if fault or not args.json:
                where = sys.stderr if args.json else sys.stdout
                what = f"{'WRONG' if fault else 'right'} {kind}: {case.name}: {fault or 'status'}"
                took = f"{outcome.seconds:.1f} s, {outcome.growth >> 20} MB"
                print(
                    f"{what} {outcome.status}, {took}, {outcome.said.strip()[:200]!a}",
                    file=where,
                    flush=True,
                )
            remove(folder)
        if "environment" in args.kinds:
            for what, fault in environments(good, weights, args.every):
                found.update({"tries": 1, "environment": 1, "failures": bool(fault)})
                if fault or not args.json:
                    print(f"{'WRONG' if fault else 'right'} environment: {what} {fault}")
            found["connections"] += count() - before
    total = {**found, **{f"worst_{what}": value for what, value in worst.items()}}
    print(json.dumps(total) if args.json else total)
    if found["failures"] + found["connections"]:
        raise SystemExit(1)


def chosen(kinds: list[str], at: str, every: int) -> Iterator[tuple[str, Case]]:
    """Each so many-th case of the kinds that are asked for."""
    makers: dict[str, Callable[[], list[Case]]] = {
        "budget": budgets, "memory": promises, "grids": lambda: grids(at), "pipes": pipes, "escapes": escapes,
    }  # fmt: skip
    for kind, maker in makers.items():
        if kind in kinds:
            yield from ((kind, case) for case in maker()[::every])


def judged(case: Case, outcome: Outcome) -> str:
    """What is wrong with an outcome; nothing if it is as it has to be."""
    lines = outcome.said.splitlines()
    if outcome.status not in case.status:
        return f"expected status {' or '.join(map(str, case.status))}, not"
    if outcome.status == 1 and not (lines and lines[-1].startswith("geomoe: error: ")):
        return "no line of ours, status"
    if outcome.status == 1 and len(lines) > case.lines:
        return f"{len(lines)} lines, status"
    if not all(c.isprintable() or c == "\n" for c in outcome.said):
        return "what it said would be obeyed, status"
    if case.memory is not None and outcome.peak > case.memory:
        return f"{outcome.peak >> 20} MB at its peak, status"
    if outcome.seconds > case.seconds:
        return "too much time, status"
    return "too much memory, status" if outcome.growth > GROWTH else ""


def attempt(argv: list[str], folder: Path, seconds: float) -> Outcome:
    """Run a command in a child whose standard input is a pipe that nobody writes to."""
    heard, grown = folder / "heard", folder / "grown"
    reading, writing = os.pipe()

    def work() -> None:
        handle = os.open(heard, os.O_WRONLY | os.O_CREAT)
        for place, stream in ((reading, 0), (handle, 1), (handle, 2)):
            os.dup2(place, stream)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + CAP, taken + CAP))
        forget_peak()
        start, status = peak_memory() or 0, 0
        try:
            command_line(argv)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        grown.write_text(f"{peak_memory() or 0} {start}")
        os._exit(status)

    began = time.monotonic()
    child = fork(work)
    os.close(reading)
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() - began > WAIT * seconds:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    _, status, used = os.wait4(child, 0)
    os.close(writing)
    peak, start = map(int, grown.read_text().split()) if grown.exists() else (0, 0)
    said = heard.read_text(errors="surrogateescape") if heard.exists() else ""
    return Outcome(os.waitstatus_to_exitcode(status), said, peak, peak - start, used.ru_utime + used.ru_stime)


def environments(good: Path, weights: Path, every: int) -> Iterator[tuple[str, str]]:
    """What is set in the environment of a command, and what it then does otherwise than without."""
    data = good.parent / "data"
    data.mkdir()
    (data / "proj.db").write_bytes(b"not a data base")
    argv = [
        sys.executable,
        "-m",
        "geomoe.cli.main",
        "info",
        str(good),
        "--scale",
        "2",
        "--model",
        str(weights),
    ]
    right = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    changes = [
        *product(("PROJ_LIB", "PROJ_DATA", "GDAL_DATA"), ("/nonexistent", str(data), "", "\udce9")),
        ("PROJ_NETWORK", "ON"), ("PROJ_AUX_DB", str(data / "proj.db")), ("PYTHONIOENCODING", "ascii"),
        ("OSR_DEFAULT_AXIS_MAPPING_STRATEGY", "x"), ("LC_ALL", "C"), ("COLUMNS", "1"), ("TERM", "dumb"),
        ("HOME", "/nonexistent"), ("XDG_DATA_HOME", str(data)), ("PROJ_USER_WRITABLE_DIRECTORY", str(data)),
    ]  # fmt: skip
    for name, value in changes[::every]:
        yield _changed(argv, {name: value}, right)


def _changed(argv: list[str], changed: dict[str, str], right: str) -> tuple[str, str]:
    done = subprocess.run(
        argv, env=os.environ | changed, capture_output=True, text=True, check=False, timeout=60
    )
    same = done.returncode == 0 and done.stdout == right and not done.stderr
    return f"{changed!a}", "" if same else f"{done.returncode} {done.stdout[:80]!a} {done.stderr[-200:]!a}"


if __name__ == "__main__":
    main()
