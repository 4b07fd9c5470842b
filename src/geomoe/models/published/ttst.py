"""TTST."""

from __future__ import annotations

from typing import Any

from geomoe.models.published.changes import JOINED
from geomoe.models.published.layout import Layout, Rule, State
from geomoe.models.published.shapes import product_of_shuffles, shape
from geomoe.models.published.window_trunk import (
    CLASSICAL_HEAD,
    OVERLAPPING_BUFFERS,
    overlapping_rules,
    trunk_options,
    trunk_rules,
)
from geomoe.models.super_resolution.ttst import TtstConfig

__all__ = ["TTST"]

_BRANCH = "layers.{i}.residual_group.blocks.{j}.conv_block"
_OURS = "trunk.groups.{i}.blocks.{j}.branch"


def _options(state: State) -> dict[str, Any]:
    width = shape(state, "conv_before_upsample.0.weight")[0]
    return {**trunk_options(state), "width": width, "scale": product_of_shuffles(state, "upsample")}


def _rules(c: TtstConfig) -> list[Rule]:
    return [
        *overlapping_rules(c, c.overlap),
        Rule(f"{_BRANCH}.qkv", f"{_OURS}.qkv.0"),
        Rule(f"{_BRANCH}.qkv_dwconv", f"{_OURS}.qkv.1"),
        Rule(f"{_BRANCH}.temperature", f"{_OURS}.temperature"),
        Rule(tuple(f"{_BRANCH}.attn{k}" for k in range(1, 5)), f"{_OURS}.mix", JOINED),
        Rule(f"{_BRANCH}.project_out", f"{_OURS}.proj"),
        *trunk_rules(),
        *CLASSICAL_HEAD,
    ]


TTST = Layout(
    "TTST",
    "ttst",
    lambda state: any(name.endswith(".conv_block.temperature") for name in state),
    _options,
    _rules,
    ignored=OVERLAPPING_BUFFERS,
)
