"""What routing costs: experts beside one dense layer of equal active work, and beside other libraries'
layers.

    python benchmarks/dispatch.py --json

Every layer does its whole work: router, sorting, experts, combining; float32. The arms of a case run in
turns, one round after the other, so that what else the machine does falls on all of them. In its turn an
arm runs twice and the second is timed: an arm that takes twenty times the memory would else leave its
neighbour a cold cache and a heap to fetch anew. The figures are medians (and quartiles) over rounds, and a
ratio is that of the medians. Routing is balanced (experts as the rows happen to fall) or skewed (one expert
gets most).

Peers are measured where they are installed: ``pip install 'geomoe[bench]'``.
Hugging Face's experts are gated and without bias, so that they stand beside ours of that kind;
st-moe-pytorch drops rows above a capacity; a soft mixture computes as many slots as there are choices.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

from geomoe import moe
from tile import hardware

SKEW = 3.0


class RoutedConvolution(nn.Module):
    """16 experts, 8 of 1x1 and 8 of 3x3, one for each pixel."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        bank = moe.HeterogeneousBank([moe.ConvExperts(channels, width, k, 8) for k in (1, 3)])
        self.layer = moe.MoE(moe.Router(moe.LinearScore(channels, 16)), bank)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, width, H, W]``."""
        pixels = moe.Pixels.of(x)
        around = moe.Neighbourhoods.of(x, self.layer.bank.reach)
        return pixels.from_rows(self.layer(around, pixels.to_rows(x), grid=pixels.grid))


class EveryConvolution(RoutedConvolution):
    """The same, all experts on all pixels: what a mixture costs without dispatch."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width)
        self.layer.backend = "dense"


def feed_forward(experts: int, channels: int, hidden: int, gated: bool) -> nn.Module:
    """Our layer: softmax over the top two."""
    bank = moe.FeedForwardExperts(
        channels, hidden, experts, "silu" if gated else "gelu", gated=gated, bias=not gated
    )
    return moe.MoE(moe.Router(moe.LinearScore(channels, experts), moe.TopK(2, "normalised")), bank)


def dense_block(channels: int, hidden: int) -> nn.Module:
    """One block of equal active work: twice the width, as two experts are active."""
    return nn.Sequential(nn.Linear(channels, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, channels))


class Sequences(nn.Module):
    """A layer that wants ``[B, T, C]``, and may give more than its result."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``[N, C]`` as one sequence."""
        out = self.layer(x[None])
        return (out if isinstance(out, Tensor) else out[0])[0]


def hugging_face(experts: int, channels: int, hidden: int, way: str) -> nn.Module | None:
    """transformers' sparse block, its experts run by ``eager`` or ``grouped_mm``."""
    try:
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    except ImportError:
        return None
    config = MixtralConfig(
        hidden_size=channels,
        intermediate_size=hidden,
        num_local_experts=experts,
        num_experts_per_tok=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        num_hidden_layers=1,
    )
    config._experts_implementation = way
    block = MixtralSparseMoeBlock(config)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=channels**-0.5)
    return Sequences(block)


def st_moe(experts: int, channels: int, hidden: int) -> nn.Module | None:
    """st-moe-pytorch's layer (gated experts, capacity 1.25 in training)."""
    try:
        from st_moe_pytorch import MoE
    except ImportError:
        return None
    # Its gated experts are two thirds as wide as the multiple says.
    return Sequences(MoE(channels, experts, expert_hidden_mult=1.5 * hidden / channels, gating_top_n=2))


def soft_moe(experts: int, channels: int, hidden: int, rows: int) -> nn.Module | None:
    """soft-moe-pytorch's layer with as many slots as rows have choices."""
    try:
        from soft_moe_pytorch import SoftMoE
    except ImportError:
        return None
    mult = hidden // channels
    return Sequences(SoftMoE(channels, num_slots=2 * rows // experts, num_experts=experts, expert_mult=mult))


@dataclass
class Case:
    """Layers on one input. The first is what the others are compared with."""

    name: str
    x: Tensor
    arms: dict[str, nn.Module]
    limits: dict[str, float]  # greatest ratio wanted, by direction


def convolution_case(channels: int, side: int, forward: float, both: float) -> Case:
    """Pixel-routed convolutions beside one dense 3x3."""
    arms = {
        "one dense 3x3": nn.Conv2d(channels, 48, 3, padding=1),
        "geomoe": RoutedConvolution(channels, 48),
        "all experts, then select": EveryConvolution(channels, 48),
    }
    x = torch.randn(1, channels, side, side)
    return Case(
        f"16 convolutions, {channels} to 48, {side} x {side}", x, arms, {"forward": forward, "both": both}
    )


def feed_forward_case(rows: int, experts: int, channels: int, hidden: int, both: float) -> Case:
    """Routed feed-forward beside a dense block of equal active work."""
    arms: dict[str, nn.Module | None] = {
        "dense block": dense_block(channels, hidden),
        "geomoe": feed_forward(experts, channels, hidden, gated=False),
        "geomoe, gated": feed_forward(experts, channels, hidden, gated=True),
        "transformers, eager": hugging_face(experts, channels, hidden, "eager"),
        "transformers, grouped": hugging_face(experts, channels, hidden, "grouped_mm"),
        "st-moe-pytorch": st_moe(experts, channels, hidden),
        "soft-moe-pytorch": soft_moe(experts, channels, hidden, rows),
    }
    here = {name: layer for name, layer in arms.items() if layer is not None}
    name = f"{experts} blocks of {channels} x {hidden}, top 2, {rows} rows"
    return Case(name, torch.randn(rows, channels), here, {"both": both})


CASES: dict[str, Callable[[], Case]] = {
    "conv64": lambda: convolution_case(180, 64, 1.5, 1.5),
    "conv256": lambda: convolution_case(64, 256, 2.0, 1.7),
    "ff8": lambda: feed_forward_case(4096, 8, 128, 512, 1.15),
    "ff64": lambda: feed_forward_case(4096, 64, 128, 256, 1.8),
}


def skew(case: Case) -> None:
    """Make one expert the favourite of most rows: rows get a common part that its gate answers to."""
    common = torch.randn(case.x.shape[1])
    common /= common.norm()
    case.x += SKEW * (common[:, None, None] if case.x.dim() == 4 else common)
    for arm in case.arms.values():
        for name, parameter in arm.named_parameters():
            if "gate" in name and parameter.dim() == 2 and parameter.shape[1] == len(common):
                with torch.no_grad():
                    parameter[0] += common


def step(layer: nn.Module, x: Tensor, both: bool) -> Callable[[], None]:
    """One forward pass, or forward and backward, as training would run it."""
    grad = None

    def run() -> None:
        nonlocal grad
        if not both:
            with torch.no_grad():
                layer(x)
            return
        layer.zero_grad()
        x.grad = None
        out = layer(x)
        grad = torch.randn_like(out) if grad is None else grad
        out.backward(grad)

    return run


def measure(case: Case, both: bool, rounds: int) -> dict[str, dict[str, float]]:
    """Median and quartiles in milliseconds of every arm, in turns."""
    x = case.x.clone().requires_grad_(both)
    runs = {name: step(layer, x, both) for name, layer in case.arms.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()  # not timed: caches and heap are then as this arm leaves them, not as its neighbour does
            began = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - began))
    found = {}
    for name, taken in times.items():
        lower, median, upper = statistics.quantiles(taken, n=4)
        found[name] = {
            "median_ms": round(median, 2),
            "lower_ms": round(lower, 2),
            "upper_ms": round(upper, 2),
        }
    return found


def peak(key: str, arm: str, both: bool, threads: int) -> float:
    """Memory in MB that one step takes at its peak, over what the process held before it.

    A process of its own.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (key, arm, both, threads))


def _peak(key: str, arm: str, both: bool, threads: int) -> float:
    torch.set_num_threads(threads)
    case = CASES[key]()
    x = case.x.requires_grad_(both)
    tiny = x.detach()[..., :8, :8] if x.dim() == 4 else x.detach()[:8]
    step(case.arms[arm], tiny.clone().requires_grad_(both), both)()  # libraries load and allocate
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    step(case.arms[arm], x, both)()
    return round((_status("VmHWM") - before) / 1024, 1)


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = []
    for key in args.cases:
        for routing in ("balanced", "skewed"):
            torch.manual_seed(0)
            case = CASES[key]()
            if routing == "skewed":
                skew(case)
            base = next(iter(case.arms))
            for direction in ("forward", "both"):
                times = measure(case, direction == "both", args.rounds)
                for figures in times.values():
                    figures["ratio"] = round(figures["median_ms"] / times[base]["median_ms"], 2)
                entry = {"case": case.name, "routing": routing, "direction": direction, "arms": times}
                if routing == "balanced":
                    entry["wanted"] = case.limits.get(direction)
                    if key.startswith("conv") and Path("/proc/self/clear_refs").exists():
                        for arm in (base, "geomoe"):
                            times[arm]["peak_mb"] = peak(key, arm, direction == "both", args.threads)
                results.append(entry)
    found = {
        "threads": args.threads,
        "hardware": hardware(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "results": results,
    }
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for entry in results:
        wanted = f", wanted at most {entry['wanted']}" if entry.get("wanted") else ""
        print(f"\n{entry['case']}; {entry['routing']}; {entry['direction']}{wanted}")
        for name, f in entry["arms"].items():
            memory = f"  {f['peak_mb']:7.1f} MB" if "peak_mb" in f else ""
            quartiles = f"{f['lower_ms']:8.2f} {f['median_ms']:8.2f} {f['upper_ms']:8.2f} ms"
            print(f"  {name:<26} {quartiles}  {f['ratio']:6.2f}{memory}")
    print(f"\n{found['hardware']}, {found['threads']} threads, torch {found['torch']}, {found['date']}")


if __name__ == "__main__":
    main()
