"""SwinIR: classical, light, and for real photographs."""

from __future__ import annotations

from typing import Any

from geomoe.models.published.layout import Layout, Rule, State
from geomoe.models.published.shapes import expect, numbered, product_of_shuffles, root, shape
from geomoe.models.published.window_trunk import CLASSICAL_HEAD, trunk_options, trunk_rules
from geomoe.models.super_resolution.swinir import SwinIrConfig

__all__ = ["SWINIR"]


def _options(state: State) -> dict[str, Any]:
    options = trunk_options(state)
    options["closing"] = "3conv" if "layers.0.conv.0.weight" in state else "1conv"
    ups = numbered(state, "conv_up")
    expect(
        bool(ups) or "upsample.0.weight" in state,
        "it enlarges nothing, as a SwinIR that removes noise or JPEG artefacts; expected super-resolution",
    )
    if "conv_before_upsample.0.weight" not in state:
        rows = shape(state, "upsample.0.weight")[0]
        return {**options, "head": "direct", "scale": root(rows // max(options["bands"], 1))}
    options["width"] = shape(state, "conv_before_upsample.0.weight")[0]
    if ups:
        return {**options, "head": "nearest", "scale": 2**ups}
    return {**options, "head": "classical", "scale": product_of_shuffles(state, "upsample")}


def _rules(c: SwinIrConfig) -> list[Rule]:
    return [*_HEADS[c.head], *trunk_rules()]


_HEADS = {
    "classical": CLASSICAL_HEAD,
    "direct": (Rule("upsample.0", "head.0"),),
    "nearest": (
        Rule("conv_before_upsample.0", "head.narrow"),
        *(Rule(f"conv_up{u + 1}", f"head.ups.{u}") for u in range(3)),
        Rule("conv_hr", "head.high"),
        Rule("conv_last", "head.last"),
    ),
}


SWINIR = Layout(
    "SwinIR",
    "swinir",
    lambda state: any(".residual_group.blocks." in name for name in state),
    _options,
    _rules,
    ignored=(r".*\.attn\.relative_position_index", r".*\.attn_mask"),
)
