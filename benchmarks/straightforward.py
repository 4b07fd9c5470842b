"""Models beside themselves as a paper's figure would be typed: what our care for speed is worth.

    python benchmarks/straightforward.py --json

The same weights, float32, one 64 x 64 tile, x4. The straightforward way multiplies queries and keys of all
windows at once, adds a bias and a mask of every window, takes the softmax and multiplies with the values;
cuts overlapping windows by ``unfold``; and lets every expert see every pixel. Ways run in turns, each twice
in its turn, the second time measured; both must give the same image. Models of convolutions alone, and
HAUNet, whose attention no fused kernel computes, have no
other way: ``benchmarks/zoo.py`` sets them beside a plain chain of convolutions.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

import geomoe
from geomoe.evaluation.hardware import hardware
from geomoe.layers import attention, hybrid
from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.experts.convolution import ConvExperts, HeterogeneousBank

MODELS = [
    *("hat", "hat_light", "hat_s", "mfg_hmoe", "mfg_hmoe_light", "spt", "swin2_mose", "swinir"),
    *("swinir_light", "ttst"),
]


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Of windows ``[..., n, heads * d]``, with a bias ``[1, heads, n, m]``, or one for each window."""
    heads, shape = bias.shape[1], q.shape
    q, k, v = (t.reshape(-1, t.shape[-2], heads, t.shape[-1] // heads).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias
    out: Tensor = scores.softmax(-1) @ v
    return out.transpose(1, 2).reshape(shape)


def shifted(self: attention.WindowAttention, x: Tensor) -> Tensor:
    """All windows in one call, with a mask for each."""
    bias = self.bias()
    if not self.shift:
        return self._windows(x, bias)
    rows, columns = (size // self.window for size in x.shape[1:3])
    kind = torch.zeros(rows, columns, dtype=torch.long)
    kind[:, -1] += 1
    kind[-1] += 2
    bias = bias + self.outside[kind.flatten()][:, None]
    shift = (self.shift, self.shift)
    out: Tensor = self._windows(x.roll((-self.shift, -self.shift), (1, 2)), bias)
    return out.roll(shift, (1, 2))


def key_windows(self: attention.OverlappingCrossAttention, x: Tensor) -> Tensor:
    """Overlapping windows by ``unfold``."""
    batch, height, width, dim = x.shape
    side, step = self.key_window, self.window
    cut = F.unfold(x.permute(0, 3, 1, 2), side, padding=(side - step) // 2, stride=step)
    windows = cut.view(batch, dim, side * side, height // step, width // step)
    return windows.permute(0, 3, 4, 2, 1).contiguous()


def branch(self: hybrid.ChannelAttentionBlock, x: Tensor, n: Tensor) -> Tensor:
    """The branch, weighed and added in steps."""
    out: Tensor = self.conv_out(F.gelu(self.conv_in(n)))
    weighed: Tensor = self.weight * (out * self.attention(out))
    return x + weighed


def everything(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Attention that holds all pairs."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out: Tensor = (q @ k.transpose(-2, -1) * scale).softmax(-1) @ v
    return out


def routed(bank: ExpertBank, rows: object, plan: object) -> str:
    """Every expert sees every pixel; whole tokens go by expert, one after the other."""
    return "dense" if isinstance(bank, ConvExperts | HeterogeneousBank) else "loop"


@contextlib.contextmanager
def straightforward() -> Iterator[None]:
    """Models compute the straightforward way."""
    dispatch = importlib.import_module("geomoe.moe.dispatch.run")  # hidden by the function of its name
    swaps: list[tuple[Any, str, Callable[..., object]]] = [
        (attention, "_attend", attend),
        (attention.WindowAttention, "forward", shifted),
        (attention.OverlappingCrossAttention, "_key_windows", key_windows),
        (hybrid.ChannelAttentionBlock, "forward", branch),
        (F, "scaled_dot_product_attention", everything),
        (dispatch, "choose_backend", routed),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, other in swaps:
            stack.enter_context(patch.object(owner, name, other))
        yield


def measure(name: str, scale: int, size: int, rounds: int, clock: Callable[[], float]) -> dict[str, object]:
    """Seconds a tile by ``clock``, both ways, and by how much the results differ."""
    model = geomoe.create_model(name, scale=scale).eval()
    x = torch.rand(1, 3, size, size)
    ways: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
        "ours": contextlib.nullcontext,
        "straightforward": straightforward,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    images = {}
    with torch.inference_mode():
        for _ in range(rounds):
            for way, context in ways.items():
                with context():
                    model(x)
                    began = clock()
                    images[way] = model(x)
                    seconds[way].append(clock() - began)
    torch.testing.assert_close(images["ours"], images["straightforward"], atol=1e-4, rtol=0)
    ours, plain = (statistics.median(seconds[way]) for way in ways)
    return {
        "model": name,
        "seconds": round(ours, 3),
        "straightforward": round(plain, 3),
        "ratio": round(ours / plain, 2),
        "largest_difference": float((images["ours"] - images["straightforward"]).abs().max()),
    }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--processor-time", action="store_true", help="of all threads, where the machine does other work too"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    clock = time.process_time if args.processor_time else time.perf_counter
    rows = [measure(name, args.scale, args.size, args.rounds, clock) for name in args.models]
    where = {
        "hardware": hardware(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    if args.json:
        print(json.dumps({"models": rows, "scale": args.scale, "tile": args.size, **where}, indent=2))
        return
    print("| model | seconds | straightforward | ratio | largest difference |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| `{row['model']}` | {row['seconds']} | {row['straightforward']} | {row['ratio']} | "
            f"{row['largest_difference']:.0e} |"
        )
    print(f"\n{where['hardware']}, torch {where['torch']}, {where['date']}")


if __name__ == "__main__":
    main()
