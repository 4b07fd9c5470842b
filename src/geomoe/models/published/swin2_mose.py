"""Swin2-MoSE."""

from __future__ import annotations

from typing import Any

from geomoe.models.published.changes import FLIPPED, POINTWISE, TRANSPOSED, stacked
from geomoe.models.published.layout import Layout, Rule, State
from geomoe.models.published.shapes import count, expect, root, shape, window
from geomoe.models.super_resolution.swin2_mose import Swin2MoseConfig

__all__ = ["SWIN2_MOSE"]

_BLOCK = "layers.{i}.residual_group.blocks.{j}"
_OURS = "groups.{i}.blocks.{j}"

_WEIGHTS = stacked(lambda t: t.T, lambda t: t.T)
"""Linear layers side by side, which a bank holds stacked and with their inputs first."""

_BIASES = stacked(lambda t: t, lambda t: t)


def _options(state: State) -> dict[str, Any]:
    dim, bands = shape(state, "conv_first.weight")[:2]
    block = "layers.0.residual_group.blocks.0"
    table = f"{block}.attn.relative_position_bias_table"
    rows = shape(state, "upsample.0.weight")[0]
    expect(rows % bands == 0, f"upsample.0.weight has {rows} rows for {bands} bands")
    groups = count(state, "layers.{i}.")
    return {
        "scale": root(rows // bands),
        "bands": bands,
        "embed_dim": dim,
        "depths": tuple(count(state, f"layers.{i}.residual_group.blocks.{{i}}.") for i in range(groups)),
        "heads": shape(state, table)[1],
        "window": window(state, table),
        "mlp_ratio": shape(state, f"{block}.mlp.experts.0.fc1.weight")[0] / dim,
        "num_experts": count(state, f"{block}.mlp.experts.{{i}}."),
        "top_k": shape(state, f"{block}.mlp.cnn_combine.weight")[1],
    }


def _experts(c: Swin2MoseConfig, part: str) -> tuple[str, ...]:
    return tuple(f"{_BLOCK}.mlp.experts.{e}.{part}" for e in range(c.num_experts))


def _rules(c: Swin2MoseConfig) -> list[Rule]:
    return [
        Rule("conv_first", "shallow"),
        Rule("patch_embed.proj", "patches", POINTWISE),
        Rule("patch_embed.norm", "norm_in"),
        Rule(f"{_BLOCK}.attn.qkv", f"{_OURS}.attention.qkv"),
        Rule(f"{_BLOCK}.attn.q_bias", f"{_OURS}.attention.query_bias"),
        Rule(f"{_BLOCK}.attn.v_bias", f"{_OURS}.attention.value_bias"),
        Rule(f"{_BLOCK}.attn.logit_scale", f"{_OURS}.attention.log_scale"),
        Rule(f"{_BLOCK}.attn.relative_position_bias_table", f"{_OURS}.attention.bias.table", FLIPPED),
        Rule(f"{_BLOCK}.attn.get_v", f"{_OURS}.attention.local"),
        Rule(f"{_BLOCK}.attn.proj", f"{_OURS}.attention.proj"),
        Rule(f"{_BLOCK}.norm1", f"{_OURS}.norm1"),
        Rule(f"{_BLOCK}.mlp.w_gate", f"{_OURS}.experts.router.score.gate.weight", TRANSPOSED),
        Rule(_experts(c, "fc1.weight"), f"{_OURS}.experts.bank.up", _WEIGHTS),
        Rule(_experts(c, "fc1.bias"), f"{_OURS}.experts.bank.up_bias", _BIASES),
        Rule(_experts(c, "fc2.weight"), f"{_OURS}.experts.bank.down", _WEIGHTS),
        Rule(_experts(c, "fc2.bias"), f"{_OURS}.experts.bank.down_bias", _BIASES),
        Rule(f"{_BLOCK}.mlp.cnn_combine", f"{_OURS}.experts.merger"),
        Rule(f"{_BLOCK}.norm2", f"{_OURS}.norm2"),
        Rule("layers.{i}.conv", "groups.{i}.conv.conv"),
        Rule("layers.{i}.patch_embed.proj", "groups.{i}.patches", POINTWISE),
        Rule("norm", "norm_out"),
        Rule("conv_after_body", "deep"),
        Rule("upsample.0", "head.0"),
    ]


SWIN2_MOSE = Layout(
    "Swin2-MoSE",
    "swin2_mose",
    lambda state: any(name.endswith(".mlp.w_gate") for name in state),
    _options,
    _rules,
    # The first release also holds the weights of a noise that it does not draw.
    ignored=(
        r".*\.attn\.rpe_relative_position_index",
        r".*\.attn_mask",
        r".*\.mlp\.(mean|std|w_noise)",
    ),
)
