"""SwinIR: classical and light."""

from __future__ import annotations

from typing import Any

from geomoe.models.published.layout import Layout, Rule, State
from geomoe.models.published.shapes import product_of_shuffles, root, shape
from geomoe.models.published.window_trunk import CLASSICAL_HEAD, trunk_options, trunk_rules
from geomoe.models.swinir import SwinIrConfig

__all__ = ["SWINIR"]


def _options(state: State) -> dict[str, Any]:
    options = trunk_options(state)
    if "conv_before_upsample.0.weight" not in state:
        rows = shape(state, "upsample.0.weight")[0]
        return {**options, "head": "direct", "scale": root(rows // options["bands"])}
    width = shape(state, "conv_before_upsample.0.weight")[0]
    return {**options, "head": "classical", "width": width, "scale": product_of_shuffles(state, "upsample")}


def _rules(c: SwinIrConfig) -> list[Rule]:
    head = CLASSICAL_HEAD if c.head == "classical" else (Rule("upsample.0", "head.0"),)
    return [*trunk_rules(), *head]


SWINIR = Layout(
    "SwinIR",
    "swinir",
    lambda state: any(".residual_group.blocks." in name for name in state),
    _options,
    _rules,
    ignored=(r".*\.attn\.relative_position_index", r".*\.attn_mask"),
)
