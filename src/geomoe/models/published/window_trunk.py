"""What SwinIR and its descendants share: a trunk of shifted windows, closed by overlapping ones or not."""

from __future__ import annotations

from typing import Any

from geomoe.models.options import AttentionConfig
from geomoe.models.published.changes import FLIPPED, rolled
from geomoe.models.published.layout import Rule, State
from geomoe.models.published.shapes import count, key_window, shape, window

__all__ = ["CLASSICAL_HEAD", "OVERLAPPING_BUFFERS", "overlapping_rules", "trunk_options", "trunk_rules"]

_BLOCK = "layers.{i}.residual_group.blocks.{j}"
_OURS = "trunk.groups.{i}.blocks.{j}"

CLASSICAL_HEAD = (
    Rule("conv_before_upsample.0", "head.0"),
    Rule("upsample.{i}", "head.2.{i}"),
    Rule("conv_last", "head.3"),
)

OVERLAPPING_BUFFERS = (r"relative_position_index_(SA|OCA)",)


def trunk_rules() -> list[Rule]:
    """Blocks of windows, what surrounds them, nothing beside them."""
    return [
        Rule("conv_first", "trunk.shallow"),
        Rule("patch_embed.norm", "trunk.norm_in"),
        Rule(f"{_BLOCK}.norm1", f"{_OURS}.norm1"),
        Rule(f"{_BLOCK}.attn.qkv", f"{_OURS}.attention.qkv"),
        Rule(f"{_BLOCK}.attn.proj", f"{_OURS}.attention.proj"),
        Rule(f"{_BLOCK}.attn.relative_position_bias_table", f"{_OURS}.attention.bias.table", FLIPPED),
        Rule(f"{_BLOCK}.norm2", f"{_OURS}.norm2"),
        Rule(f"{_BLOCK}.mlp.fc1", f"{_OURS}.mlp.0"),
        Rule(f"{_BLOCK}.mlp.fc2", f"{_OURS}.mlp.2"),
        Rule("layers.{i}.conv", "trunk.groups.{i}.conv.conv"),
        Rule("layers.{i}.conv.{k}", "trunk.groups.{i}.conv.conv.{k}"),
        Rule("norm", "trunk.norm_out"),
        Rule("conv_after_body", "trunk.deep"),
        Rule("conv_after_body.{k}", "trunk.deep.{k}"),
    ]


def overlapping_rules(c: AttentionConfig, overlap: float) -> list[Rule]:
    """The block of overlapping windows that ends each group; to stand before the rules of the trunk."""
    outer = int(c.window * overlap) + c.window
    rules = []
    for group, depth in enumerate(c.depths):  # there it has a name of its own, here it is the last block
        theirs = f"layers.{group}.residual_group.overlap_attn"
        ours = f"trunk.groups.{group}.blocks.{depth}"
        rules += [
            Rule(f"{theirs}.norm1", f"{ours}.norm1"),
            Rule(f"{theirs}.qkv", f"{ours}.attention.qkv"),
            Rule(f"{theirs}.proj", f"{ours}.attention.proj"),
            Rule(
                f"{theirs}.relative_position_bias_table",
                f"{ours}.attention.bias.table",
                rolled((outer - 2) * (c.window + outer)),
            ),
            Rule(f"{theirs}.norm2", f"{ours}.norm2"),
            Rule(f"{theirs}.mlp.fc1", f"{ours}.mlp.0"),
            Rule(f"{theirs}.mlp.fc2", f"{ours}.mlp.2"),
        ]
    return rules


def trunk_options(state: State) -> dict[str, Any]:
    """Options of the trunk, and the overlap where there is overlapping attention."""
    dim, bands = shape(state, "conv_first.weight")[:2]
    block = "layers.0.residual_group.blocks.0"
    table = f"{block}.attn.relative_position_bias_table"
    groups = count(state, "layers.{i}.")
    side = window(state, table)
    options = {
        "bands": bands,
        "embed_dim": dim,
        "depths": tuple(count(state, f"layers.{i}.residual_group.blocks.{{i}}.") for i in range(groups)),
        "heads": shape(state, table)[1],
        "window": side,
        "mlp_ratio": shape(state, f"{block}.mlp.fc1.weight")[0] / dim,
    }
    table = "layers.0.residual_group.overlap_attn.relative_position_bias_table"
    if table in state:
        options["overlap"] = (key_window(state, table, side) - side) / side
    return options
