"""The two banks of docs/core/your_own_bank.md: seconds of a forward and backward pass, and their ratio.

python benchmarks/own_bank.py [--experts 8 64] [--rows 4096] [--channels 64]
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import torch

from geomoe import moe

PAGE = Path(__file__).parents[1] / "docs/core/your_own_bank.md"


def seconds(bank: moe.ExpertBank, rows: torch.Tensor, rounds: int = 7) -> float:
    """Least of ``rounds``."""
    layer = moe.MoE(moe.switch_router(rows.shape[1], bank.num_experts), bank)
    least = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        layer(rows).square().mean().backward()
        least = min(least, time.perf_counter() - start)
    return least


def main() -> None:
    """Print a line for each number of experts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--channels", type=int, default=64)
    options = parser.parse_args()
    scope: dict[str, type[moe.ExpertBank]] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, scope)
    rows = torch.randn(options.rows, options.channels)
    for experts in options.experts:
        obvious, good = (
            seconds(scope[name](options.channels, options.channels, experts), rows)
            for name in ("Obvious", "Good")
        )
        print(f"{experts} experts: obvious {obvious:.4f} s, good {good:.4f} s, {obvious / good:.1f} times")


if __name__ == "__main__":
    main()
