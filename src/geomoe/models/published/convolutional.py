"""EDSR and RCAN, each in the layout of its authors' program and in that of BasicSR."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geomoe.layers.convolution import DIV2K_MEAN
from geomoe.models.published.changes import POINTWISE
from geomoe.models.published.layout import Layout, Rule, State
from geomoe.models.published.shapes import count, expect, product_of_shuffles, shape
from geomoe.models.super_resolution.edsr import EdsrConfig
from geomoe.models.super_resolution.rcan import RcanConfig

__all__ = ["EDSR", "EDSR_ORIGINAL", "RCAN", "RCAN_ORIGINAL"]

_PEAK = 255
_RESIDUAL_SCALES = {64: 1.0, 256: 0.1}
"""Of the published EDSR, by their width: no tensor holds it."""


def _original_mean(state: State) -> dict[str, Any]:
    """The mean that the original programs hold in convolutions of 1x1 that subtract it and add it again."""
    bands = shape(state, "head.0.weight")[1]
    names = [f"{side}_mean.{part}" for side in ("sub", "add") for part in ("weight", "bias")]
    held = [state[name].float() for name in names if shape(state, name)]
    expect(all(t.shape[0] == bands for t in held), f"{names[0]} is not for {bands} bands")
    identity = torch.eye(bands).view(bands, bands, 1, 1)
    same = all(torch.equal(weight, identity) for weight in (held[0], held[2]))
    expect(same and torch.equal(held[1], -held[3]), "sub_mean and add_mean do not undo each other")
    mean = tuple(round(float(m) / _PEAK, 6) for m in held[3])
    expect(max(mean) * _PEAK > 1, f"its mean is {mean}, as of values in 0 to 1, expected 0 to {_PEAK}")
    return {} if mean == DIV2K_MEAN else {"mean": mean}


def _original_constants(c: EdsrConfig | RcanConfig) -> dict[str, Tensor]:
    identity = torch.eye(c.bands, device="cpu").view(c.bands, c.bands, 1, 1)
    mean = _PEAK * torch.tensor(c.mean or (DIV2K_MEAN if c.bands == 3 else (0.0,)), device="cpu")
    mean = mean.expand(c.bands)
    return {
        "sub_mean.weight": identity,
        "sub_mean.bias": -mean,
        "add_mean.weight": identity,
        "add_mean.bias": mean,
    }


def _original_rules(deep: str) -> list[Rule]:
    return [
        Rule("head.0", "shallow"),
        Rule(deep, deep),
        Rule("tail.0.{i}", "upsample.{i}"),
        Rule("tail.1", "last"),
    ]


def _basic_rules(deep: str) -> list[Rule]:
    return [
        Rule("conv_first", "shallow"),
        Rule("conv_after_body", deep),
        Rule("upsample.{i}", "upsample.{i}"),
        Rule("conv_last", "last"),
    ]


def _edsr_options(state: State, first: str, upsample: str, blocks: int) -> dict[str, Any]:
    width, bands = shape(state, first)[:2]
    return {
        "scale": product_of_shuffles(state, upsample),
        "bands": bands,
        "width": width,
        "blocks": blocks,
        "residual_scale": _RESIDUAL_SCALES.get(width),
    }


EDSR = Layout(
    "EDSR",
    "edsr_l",
    lambda state: "body.0.conv1.weight" in state,
    lambda state: _edsr_options(state, "conv_first.weight", "upsample", count(state, "body.{i}.")),
    lambda c: [
        *_basic_rules(f"body.{c.blocks}"),
        Rule("body.{i}.conv1", "body.{i}.body.0"),
        Rule("body.{i}.conv2", "body.{i}.body.2"),
    ],
)

EDSR_ORIGINAL = Layout(
    "EDSR",
    "edsr_l",
    lambda state: "body.0.body.0.weight" in state,
    lambda state: {
        **_edsr_options(state, "head.0.weight", "tail.0", count(state, "body.{i}.") - 1),
        **_original_mean(state),
    },
    lambda c: [*_original_rules(f"body.{c.blocks}"), Rule("body.{i}.body.{j}", "body.{i}.body.{j}")],
    constants=_original_constants,
)


def _rcan_options(
    state: State, first: str, upsample: str, groups: int, blocks: int, squeezed: str
) -> dict[str, Any]:
    width, bands = shape(state, first)[:2]
    return {
        "scale": product_of_shuffles(state, upsample),
        "bands": bands,
        "width": width,
        "groups": groups,
        "blocks": blocks,
        "reduction": width // max(shape(state, squeezed)[0], 1),
    }


_BLOCK = "body.{i}.residual_group.{j}.rcab"
_ORIGINAL_BLOCK = "body.{i}.body.{j}.body"
_OUR_BLOCK = "body.{i}.body.{j}"

RCAN = Layout(
    "RCAN",
    "rcan",
    lambda state: any(".rcab." in name for name in state),
    lambda state: _rcan_options(
        state,
        "conv_first.weight",
        "upsample",
        count(state, "body.{i}."),
        count(state, "body.0.residual_group.{i}."),
        "body.0.residual_group.0.rcab.3.attention.1.weight",
    ),
    lambda c: [
        *_basic_rules(f"body.{c.groups}"),
        Rule("body.{i}.conv", f"body.{{i}}.body.{c.blocks}"),
        Rule(f"{_BLOCK}.{{k}}", f"{_OUR_BLOCK}.body.{{k}}"),
        Rule(f"{_BLOCK}.3.attention.1", f"{_OUR_BLOCK}.gate.down", POINTWISE),
        Rule(f"{_BLOCK}.3.attention.3", f"{_OUR_BLOCK}.gate.up", POINTWISE),
    ],
)

RCAN_ORIGINAL = Layout(
    "RCAN",
    "rcan",
    lambda state: any(".conv_du." in name for name in state),
    lambda state: {
        **_rcan_options(
            state,
            "head.0.weight",
            "tail.0",
            count(state, "body.{i}.") - 1,
            count(state, "body.0.body.{i}.") - 1,
            "body.0.body.0.body.3.conv_du.0.weight",
        ),
        **_original_mean(state),
    },
    lambda c: [
        *_original_rules(f"body.{c.groups}"),
        Rule(f"body.{{i}}.body.{c.blocks}", f"body.{{i}}.body.{c.blocks}"),
        Rule(f"{_ORIGINAL_BLOCK}.{{k}}", f"{_OUR_BLOCK}.body.{{k}}"),
        Rule(f"{_ORIGINAL_BLOCK}.3.conv_du.0", f"{_OUR_BLOCK}.gate.down", POINTWISE),
        Rule(f"{_ORIGINAL_BLOCK}.3.conv_du.2", f"{_OUR_BLOCK}.gate.up", POINTWISE),
    ],
    constants=_original_constants,
)
