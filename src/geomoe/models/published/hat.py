"""HAT, HAT-S, HAT-L."""

from __future__ import annotations

from typing import Any

from geomoe.models.published.changes import POINTWISE
from geomoe.models.published.layout import Layout, Rule, State
from geomoe.models.published.shapes import product_of_shuffles, shape
from geomoe.models.published.window_trunk import (
    CLASSICAL_HEAD,
    OVERLAPPING_BUFFERS,
    overlapping_rules,
    trunk_options,
    trunk_rules,
)
from geomoe.models.super_resolution.hat import HatConfig, HybridOptions

__all__ = ["HAT", "hybrid_options", "hybrid_rules"]

_CAB = "layers.{i}.residual_group.blocks.{j}.conv_block.cab"
_OURS = "trunk.groups.{i}.blocks.{j}.branch"


def hybrid_options(state: State) -> dict[str, Any]:
    """Options of HAT's trunk."""
    options = trunk_options(state)
    cab = "layers.0.residual_group.blocks.0.conv_block.cab"
    # Of a quotient that is rounded down, the divisor is not in the file: any of the same quotient will do.
    narrow, squeezed = (shape(state, f"{cab}.{name}.weight")[0] for name in ("0", "3.attention.1"))
    dim = options["embed_dim"]
    return {**options, "compress": dim // max(narrow, 1), "squeeze": dim // max(squeezed, 1)}


def hybrid_rules(c: HybridOptions) -> list[Rule]:
    """Of HAT's trunk."""
    return [
        *overlapping_rules(c, c.overlap),
        Rule(f"{_CAB}.0", f"{_OURS}.conv_in.conv"),
        Rule(f"{_CAB}.2", f"{_OURS}.conv_out.conv"),
        Rule(f"{_CAB}.3.attention.1", f"{_OURS}.attention.gate.down", POINTWISE),
        Rule(f"{_CAB}.3.attention.3", f"{_OURS}.attention.gate.up", POINTWISE),
        *trunk_rules(),
    ]


def _options(state: State) -> dict[str, Any]:
    width = shape(state, "conv_before_upsample.0.weight")[0]
    return {**hybrid_options(state), "width": width, "scale": product_of_shuffles(state, "upsample")}


def _rules(c: HatConfig) -> list[Rule]:
    return [*hybrid_rules(c), *CLASSICAL_HEAD]


HAT = Layout(
    "HAT",
    "hat",
    lambda state: any(".overlap_attn." in name for name in state),
    _options,
    _rules,
    ignored=OVERLAPPING_BUFFERS,
)
