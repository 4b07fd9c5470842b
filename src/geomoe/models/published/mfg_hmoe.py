"""MFG-HMoE, as released: our ``mfg_hmoe_released``."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from torch import Tensor

from geomoe.models.published.changes import ZEROS, Change, stacked
from geomoe.models.published.hat import hybrid_options, hybrid_rules
from geomoe.models.published.layout import Layout, Rule, State
from geomoe.models.published.shapes import count, expect, root, shape
from geomoe.models.published.window_trunk import OVERLAPPING_BUFFERS
from geomoe.models.super_resolution.mfg_hmoe import MfgHmoeConfig

__all__ = ["MFG_HMOE"]

_EXPERTS = "upsample.0.experts"
_GATE = "upsample.0.gate"
_ROUTED = "upsample.routed"


def _options(state: State) -> dict[str, Any]:
    expert_width = shape(state, "conv_last.weight")[1]
    groups = count(state, f"{_GATE}.w_expert_gates.{{i}}.")
    sizes = [shape(state, f"{_GATE}.w_expert_gates.{i}.weight")[0] for i in range(groups)]
    expect(sum(sizes) == count(state, f"{_EXPERTS}.{{i}}."), "gates and experts are not of one number")
    firsts = [f"{_EXPERTS}.{start}.weight" for start in accumulate([0, *sizes[:-1]])]
    return {
        **hybrid_options(state),
        "scale": root(shape(state, firsts[0])[0] // expert_width),
        "mean": (0.0,),
        "kernel_sizes": tuple(shape(state, first)[-1] for first in firsts),
        "experts_per_group": sizes[0] if len(set(sizes)) == 1 else tuple(sizes),
        "routing": "hard",
        "aggregation": "released",
        "width": shape(state, "conv_before_upsample.0.weight")[0],
        "expert_width": expert_width,
        "router_width": shape(state, "aggr_conv.0.weight")[0],
    }


def _kernels(size: int) -> Change:
    """Convolutions ``[C_out, C_in, k, k]``, which our bank holds as matrices, kernel position first."""

    def back(matrix: Tensor) -> Tensor:
        kernel: Tensor = matrix.unflatten(0, (size, size, -1))  # [k, k, C_in, C_out]
        return kernel.permute(3, 2, 0, 1)

    return stacked(lambda kernel: kernel.permute(2, 3, 1, 0).flatten(0, 2), back)


def _rules(c: MfgHmoeConfig) -> list[Rule]:
    sizes = c.group_sizes
    rules = []
    for i, (start, size) in enumerate(zip(accumulate([0, *sizes[:-1]]), sizes, strict=True)):
        experts = [f"{_EXPERTS}.{e}" for e in range(start, start + size)]
        bank = f"{_ROUTED}.bank.groups.{i}"
        rules += [
            Rule(tuple(f"{e}.weight" for e in experts), f"{bank}.weight", _kernels(c.kernel_sizes[i])),
            Rule(tuple(f"{e}.bias" for e in experts), f"{bank}.bias", stacked(lambda b: b, lambda b: b)),
        ]
    levels = range(len(c.depths))
    score = f"{_ROUTED}.router.score"
    return [
        *rules,
        Rule(f"{_GATE}.w_group_gate", f"{score}.to_group"),
        Rule(f"{_GATE}.w_expert_gates.{{i}}", f"{score}.to_expert.{{i}}"),
        Rule((), f"{_ROUTED}.router.prefer.{{i}}.bias", ZEROS),  # ours, to even loads while training
        Rule(f"{_GATE}.group_embedding.weight", f"{score}.group_embedding"),
        *(Rule(f"mfg.{2 * i}", f"trunk.level_norms.{i}") for i in levels),
        *(Rule(f"mfg.{2 * i + 1}.{{k}}", f"aggregate.levels.{i}.{{k}}.conv") for i in levels),
        Rule("aggr_conv.0", "aggregate.conv.conv"),
        Rule("conv_before_upsample.0", "upsample.narrow"),
        Rule("conv_last", "upsample.last"),
        *hybrid_rules(c),
    ]


MFG_HMOE = Layout(
    "MFG-HMoE",
    "mfg_hmoe_released",
    lambda state: "mfg.0.weight" in state,
    _options,
    _rules,
    ignored=OVERLAPPING_BUFFERS,
)
