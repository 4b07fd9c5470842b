"""Which way of carrying out a plan is fastest, by what there is to do: the table behind ``backend="auto"``.

    python benchmarks/backends.py
    python benchmarks/backends.py --device cuda

Each line is one bank, plan and number of rows; ways run in turns, forward or forward and backward, and the
figures are medians in milliseconds. The last column names the way that ``auto`` takes, with its time over
that of the fastest. On an accelerator ``plain`` is ``grouped`` without our kernels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime

import torch
from torch import Tensor

from geomoe import moe
from geomoe.evaluation.hardware import hardware
from geomoe.moe.kernels import launch


def feed_forward(experts: int, side: int) -> tuple[moe.ExpertBank, moe.Rows]:
    """Blocks of 64 x 128 on rows."""
    x = torch.randn(side * side, 64, requires_grad=True)
    return moe.FeedForwardExperts(64, 128, experts), x


def convolutions(experts: int, side: int) -> tuple[moe.ExpertBank, moe.Rows]:
    """1x1 and 3x3 convolutions, half and half, on pixels."""
    x = torch.randn(1, 64, side, side, requires_grad=True)
    bank = moe.HeterogeneousBank([moe.ConvExperts(64, 48, k, experts // 2) for k in (1, 3)])
    return bank, moe.Neighbourhoods.of(x, bank.reach)


BANKS = {"feed-forward": feed_forward, "convolutions": convolutions}


def plan_for(experts: int, top_k: int, side: int, piece: int) -> moe.RoutingPlan:
    """A plan in which ``piece`` x ``piece`` pixels at a time have the same experts."""
    coarse = torch.randn(1, experts, -(-side // piece), -(-side // piece))
    logits = coarse.repeat_interleave(piece, 2).repeat_interleave(piece, 3)[..., :side, :side]
    choice = moe.TopK(top_k, "soft")
    rows = logits.permute(0, 2, 3, 1).reshape(-1, experts)
    selection = choice(rows, rows)
    return moe.RoutingPlan(*selection[:3], rows, (experts,), (1, side, side), selection.kept)


def cases() -> Iterator[tuple[str, int, int, int, int]]:
    """Bank, experts, choices, side and piece."""
    for name in BANKS:
        for side in (16, 64):
            for experts, top_k in ((2, 1), (4, 1), (4, 2), (4, 3), (4, 4), (16, 1), (16, 4), (16, 16)):
                yield name, experts, top_k, side, 1
    for side, piece in ((64, 4), (64, 8), (64, 16), (64, 64), (256, 32)):
        yield "convolutions", 16, 1, side, piece
    if torch.get_default_device().type != "cpu":  # which work of a CPU's size does not fill
        for name in BANKS:
            for experts, top_k in ((4, 1), (4, 2), (16, 1), (16, 4)):
                yield name, experts, top_k, 512, 1


def measure(
    bank: moe.ExpertBank, rows: moe.Rows, plan: moe.RoutingPlan, ways: list[str], both: bool, rounds: int
) -> dict[str, float]:
    """Median milliseconds of every way."""

    def run(way: str) -> None:
        with launch.switched_off() if way == "plain" else nullcontext(), torch.set_grad_enabled(both):
            out: Tensor = moe.dispatch(bank, rows, plan, "grouped" if way == "plain" else way)
            if both:
                out.backward(torch.ones_like(out), retain_graph=True)
        if out.is_cuda:
            torch.cuda.synchronize()

    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            began = time.perf_counter()
            run(way)
            if number:
                times[way].append(1000 * (time.perf_counter() - began))
    return {way: round(statistics.median(taken), 3) for way, taken in times.items()}


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)
    torch.manual_seed(0)
    found = []
    for name, experts, top_k, side, piece in cases():
        bank, rows = BANKS[name](experts, side)
        plan = plan_for(experts, top_k, side, piece)
        ways = ["dense", "loop", "grouped"] + (["window"] if name == "convolutions" else [])
        ways += ["plain"] if args.device != "cpu" else []
        for both in (False, True):
            times = measure(bank, rows, plan, ways, both, args.rounds)
            taken = moe.choose_backend(bank, rows, plan)
            entry = {"bank": name, "experts": experts, "top_k": top_k, "rows": side * side, "piece": piece}
            entry |= {"direction": "both" if both else "forward", "ms": times, "auto": taken}
            entry["over_fastest"] = round(times[taken] / min(times.values()), 2)
            found.append(entry)
            if not args.json:
                figures = "  ".join(f"{way} {ms:8.2f}" for way, ms in times.items())
                work = f"{name:<13} {experts:>2} experts, top {top_k:<2} {side**2:>6} rows, pieces {piece:<3}"
                choice = f"auto: {taken} {entry['over_fastest']:.2f}"
                print(f"{work} {entry['direction']:<8} {figures}  {choice}", flush=True)
    about = {
        "hardware": hardware(args.device),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    if args.json:
        print(json.dumps(about | {"results": found}, indent=2))
    else:
        print(f"\n{about['hardware']}, torch {about['torch']}, {about['date']}")


if __name__ == "__main__":
    main()
