"""A selective scan in chunks beside the loop over its steps that it stands for, alone and inside MambaMoE.

    python benchmarks/selective_scan.py --json

Forward and backward pass in float32 of one sequence of 16 channels with 16 numbers of state each; then a
training step of the small MambaMoE that ships on a square scene, whose finest features are a sequence of
(side / 2)^2. Both ways have the same weights and inputs, run in turns, each twice in its turn, of which the
second is measured, and must give the same gradients. The loop is unbound once and stacked once, so that its
backward pass, too, is linear in the length. Memory is how much more than before the pass a process of its own
holds at most; seconds are those of the processor, on one thread, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import geomoe
from geomoe.evaluation.hardware import hardware
from geomoe.evaluation.peak import process_peak
from geomoe.layers import selective_scan as layer

CHANNELS = STATES = 16
LENGTHS = (1296, 2592, 5184, 10368, 20736)
SIDES = (72, 144, 288)
CONFIG = {"bands": 200, "classes": tuple("abcdefghijklmnop"), "width": 32, "inner": (4, 4, 4, 4)}

Pass = Callable[[], tuple[float, float, Tensor]]
"""Runs forward and backward; their seconds of the processor, and a gradient."""


def loop(decay: Tensor, added: Tensor) -> Tensor:
    """``h_t = decay_t * h_{t-1} + added_t``, one step after another."""
    h, found = torch.zeros_like(added[0]), []
    for a, b in zip(decay.unbind(), added.unbind(), strict=True):
        h = a * h + b
        found.append(h)
    return torch.stack(found)


def as_loop(on: bool) -> contextlib.AbstractContextManager[object]:
    """While it lasts, scans are carried out by :func:`loop`."""
    return patch.object(layer, "linear_recurrence", loop) if on else contextlib.nullcontext()


def timed(run: Callable[[], Tensor], grad: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    """Carry out a :data:`Pass`."""
    began = time.process_time()
    loss = run()
    between = time.process_time()
    loss.backward()
    return between - began, time.process_time() - between, grad()


def scan(length: int) -> Pass:
    """One sequence through :func:`geomoe.layers.selective_scan.selective_scan`."""
    torch.manual_seed(0)
    x, step = torch.randn(1, length, CHANNELS), torch.rand(1, length, CHANNELS) / 10
    b, c = torch.randn(2, 1, length, STATES)
    a = -torch.arange(1.0, STATES + 1).repeat(CHANNELS, 1)
    inputs = [t.clone().requires_grad_() for t in (x, step, a, b, c)]

    def grad() -> Tensor:
        found = torch.cat([t.grad.flatten() for t in inputs if t.grad is not None])
        for t in inputs:
            t.grad = None
        return found

    return lambda: timed(lambda: layer.selective_scan(*inputs).square().mean(), grad)


def network(side: int) -> Pass:
    """A training step, but for its optimiser, of MambaMoE."""
    torch.manual_seed(0)
    model, x = geomoe.create_model("mamba_moe", **CONFIG).train(), torch.rand(1, 200, side, side)

    def grad() -> Tensor:
        found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
        return found

    return lambda: timed(lambda: model(x).square().mean(), grad)


CASES: dict[str, tuple[Callable[[int], Pass], tuple[int, ...]]] = {
    "scan": (scan, LENGTHS),
    "network": (network, SIDES),
}


def memory(what: str, size: int, by_loop: bool) -> float:
    """What :func:`grown` gives in a process of its own."""
    command = [sys.executable, __file__, "--one", what, str(size), str(int(by_loop))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def grown(what: str, size: int, by_loop: bool) -> float:
    """MB that a pass adds to the most that this process has held."""
    torch.set_num_threads(1)
    one = CASES[what][0](size)
    CASES[what][0](16)()  # what is made once: libraries, their buffers
    before = process_peak()
    with as_loop(by_loop):
        one()
    return (process_peak() - before) / 1e6


def measure(rounds: int) -> Iterator[dict[str, Any]]:
    """Both ways of every case."""
    for what, (make, sizes) in CASES.items():
        for size in sizes:
            one, found, grads = make(size), {False: [], True: []}, {}
            for _ in range(rounds):
                for by_loop, times in found.items():
                    with as_loop(by_loop):
                        one()
                        *seconds, grads[by_loop] = one()
                    times.append(seconds)
            off = (grads[True] - grads[False]).norm() / grads[True].norm()
            if off > 1e-4:
                raise SystemExit(f"{what} {size}: gradients differ by {off:.1e} of their norm")
            for by_loop, times in found.items():
                forward, backward = (statistics.median(t) for t in zip(*times, strict=True))
                yield {
                    "what": what,
                    "size": size,
                    "way": "loop" if by_loop else "chunks",
                    "forward_s": round(forward, 4),
                    "backward_s": round(backward, 4),
                    "memory_mb": round(memory(what, size, by_loop), 1),
                }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(grown(args.one[0], int(args.one[1]), args.one[2] == "1"))
        return
    torch.set_num_threads(args.threads)
    rows = []
    for row in measure(args.rounds):
        rows.append(row)
        if not args.json:
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    said = {
        "hardware": hardware(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(json.dumps({"rows": rows, **said}, indent=2) if args.json else said)


if __name__ == "__main__":
    main()
