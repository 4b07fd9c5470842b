"""SPT."""

from __future__ import annotations

from typing import Any

from geomoe.models.published.changes import POINTWISE
from geomoe.models.published.layout import Layout, Rule, State
from geomoe.models.published.shapes import count, product_of_shuffles, shape
from geomoe.models.published.window_trunk import CLASSICAL_HEAD
from geomoe.models.super_resolution.spt import SptConfig

__all__ = ["SPT"]

_GROUP = "layers.{i}"
_LAYER = f"{_GROUP}.Self_PPSA_Block.{{j}}"
_OUR_GROUP = "groups.{i}"
_OUR_LAYER = f"{_OUR_GROUP}.layers.{{j}}"


def _options(state: State) -> dict[str, Any]:
    dim, bands = shape(state, "conv_first.weight")[:2]
    layer = "layers.0.Self_PPSA_Block.0"
    inner = shape(state, f"{layer}.conv_in.weight")[0] // 2
    groups = count(state, "layers.{i}.")

    def divisors(cab: str, wide: int) -> tuple[int, int]:
        # Of a quotient that is rounded down the divisor is not in the file: any of the same quotient will do.
        narrow, squeezed = (shape(state, f"{cab}.{name}.weight")[0] for name in ("0", "3.attention.1"))
        return wide // max(narrow, 1), wide // max(squeezed, 1)

    compress, squeeze = divisors(f"{layer}.CAB.cab", inner)
    fusion_compress, fusion_squeeze = divisors("layers.0.fused.cab.cab", dim)
    return {
        "scale": product_of_shuffles(state, "upsample"),
        "bands": bands,
        "embed_dim": dim,
        "depths": tuple(count(state, f"layers.{i}.Self_PPSA_Block.{{i}}.") for i in range(groups)),
        "inner_dim": inner,
        "mlp_ratio": shape(state, f"{layer}.FFN.fc1.weight")[0] / dim,
        "compress": compress,
        "squeeze": squeeze,
        "fusion_compress": fusion_compress,
        "fusion_squeeze": fusion_squeeze,
        "width": shape(state, "conv_before_upsample.0.weight")[0],
    }


def _cab(theirs: str, ours: str) -> list[Rule]:
    return [
        Rule(f"{theirs}.0", f"{ours}.conv_in.conv"),
        Rule(f"{theirs}.2", f"{ours}.conv_out.conv"),
        Rule(f"{theirs}.3.attention.1", f"{ours}.attention.gate.down", POINTWISE),
        Rule(f"{theirs}.3.attention.3", f"{ours}.attention.gate.up", POINTWISE),
    ]


def _rules(c: SptConfig) -> list[Rule]:
    return [
        Rule("conv_first", "shallow"),
        Rule("patch_embed.norm", "norm_in"),
        Rule("d_convs.{i}", "pyramid.convs.{i}"),
        Rule(f"{_GROUP}.conv_split", f"{_OUR_GROUP}.split", POINTWISE),
        Rule(f"{_LAYER}.norm1", f"{_OUR_LAYER}.norm1"),
        Rule(f"{_LAYER}.conv_in", f"{_OUR_LAYER}.split", POINTWISE),
        Rule(f"{_LAYER}.attn.q.0", f"{_OUR_LAYER}.attention.query"),
        Rule(f"{_LAYER}.attn.kv.0", f"{_OUR_LAYER}.attention.key_value"),
        Rule(f"{_LAYER}.attn.norm", f"{_OUR_LAYER}.attention.norm"),
        Rule(f"{_LAYER}.attn.proj", f"{_OUR_LAYER}.attention.proj"),
        *_cab(f"{_LAYER}.CAB.cab", f"{_OUR_LAYER}.branch"),
        Rule(f"{_LAYER}.conv_up", f"{_OUR_LAYER}.join", POINTWISE),
        Rule(f"{_LAYER}.conv", f"{_OUR_LAYER}.join_difference", POINTWISE),
        Rule(f"{_LAYER}.norm2", f"{_OUR_LAYER}.norm2"),
        Rule(f"{_LAYER}.FFN.fc1", f"{_OUR_LAYER}.mlp.0"),
        Rule(f"{_LAYER}.FFN.fc2", f"{_OUR_LAYER}.mlp.2"),
        Rule(f"{_GROUP}.conv_sum", f"{_OUR_GROUP}.conv.conv"),
        *_cab(f"{_GROUP}.fused.cab.cab", f"{_OUR_GROUP}.fusion.branch"),
        Rule(f"{_GROUP}.fused.conv_1", f"{_OUR_GROUP}.fusion.join_difference", POINTWISE),
        Rule(f"{_GROUP}.fused.conv_2", f"{_OUR_GROUP}.fusion.join", POINTWISE),
        Rule("norm", "norm_out"),
        Rule("conv_after_body", "deep"),
        *CLASSICAL_HEAD,
        Rule("final_feat1", "correct.0"),
        Rule("final_feat2", "correct.1"),
    ]


SPT = Layout("SPT", "spt", lambda state: any(".Self_PPSA_Block." in name for name in state), _options, _rules)
