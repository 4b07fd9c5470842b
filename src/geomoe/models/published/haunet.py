"""HAUNet, HAUNet-S."""

from __future__ import annotations

from typing import Any

from geomoe.models.published.layout import Layout, Rule, State
from geomoe.models.published.shapes import count, expect, root, shape
from geomoe.models.super_resolution.haunet import HauNetConfig

__all__ = ["HAUNET"]

_CROSS = "lateral_nafblock.qkv.0"

_ENCODER = ("encoders.0", "encoders.1", "enc_middle_blks")
_DECODER = ("decoders.1", "decoders.0", "dec_middle_blks")
"""Our levels 0, 1, 2, from fine to coarse."""


def _options(state: State) -> dict[str, Any]:
    width, bands = shape(state, "intro.weight")[:2]
    rows = shape(state, "up.0.weight")[0]
    expect(rows % bands == 0, f"up.0.weight has {rows} rows for {bands} bands")
    return {
        "scale": root(rows // bands),
        "bands": bands,
        "width": width,
        "encoder": tuple(count(state, f"{level}.{{i}}.") for level in _ENCODER),
        "decoder": tuple(count(state, f"{level}.{{i}}.") for level in _DECODER),
        "heads": tuple(shape(state, f"{level}.0.temperature")[0] for level in _ENCODER),
        "cross_heads": shape(state, f"{_CROSS}.temperature")[0],
    }


def _level(theirs: str, ours: str) -> list[Rule]:
    """Blocks ``theirs.{j}``, which are ``ours.{j}``."""
    names = {
        "norm1": "norm",
        "qkv": "qkv.0",
        "qkv_dwconv": "qkv.1",
        "temperature": "channels.temperature",
        "project_out": "channels.proj",
        "beta": "channels.factor",
        "temperature2": "pixels.temperature",
        "project_out2": "pixels.proj",
        "beta2": "pixels.factor",
        "norm2": "feed_forward.norm",
        "conv4": "feed_forward.up",
        "conv5": "feed_forward.down",
        "gamma": "feed_forward.factor",
    }
    return [Rule(f"{theirs}.{{j}}.{a}", f"{ours}.{{j}}.{b}") for a, b in names.items()]


def _cross(level: int) -> list[Rule]:
    """What level ``level`` has of the cross-scale interaction; names of level 0 have no number."""
    n, n_ = (str(level), f"_{level}") if level else ("", "")
    ours = f"interaction.levels.{level}"
    return [
        Rule(f"{_CROSS}.normq{n}", f"interaction.norms.{level}"),
        Rule(f"{_CROSS}.q{n}", f"{ours}.query.0"),
        Rule(f"{_CROSS}.q{n}_dwconv", f"{ours}.query.1"),
        Rule(f"{_CROSS}.temperature{n}", f"{ours}.temperature"),
        Rule(f"{_CROSS}.project_out{n}", f"interaction.projections.{level}"),
        Rule(f"{_CROSS}.beta{n}", f"{ours}.factor"),
        Rule(f"{_CROSS}.norm2{n_}", f"{ours}.feed_forward.norm"),
        Rule(f"{_CROSS}.conv4{n_}", f"{ours}.feed_forward.up"),
        Rule(f"{_CROSS}.conv5{n_}", f"{ours}.feed_forward.down"),
        Rule(f"{_CROSS}.gamma{n}", f"{ours}.feed_forward.factor"),
    ]


def _rules(c: HauNetConfig) -> list[Rule]:
    levels = [
        *((theirs, f"encoder.{i}") for i, theirs in enumerate(_ENCODER)),
        *((theirs, f"decoder.{i}") for i, theirs in enumerate(_DECODER)),
    ]
    return [
        Rule("intro", "shallow"),
        *(rule for theirs, ours in levels for rule in _level(theirs, ours)),
        Rule("downs.{i}", "down.{i}"),
        Rule("ups.1.0", "up.0"),
        Rule("ups.0.0", "up.1"),
        Rule(f"{_CROSS}.kv", "interaction.key_value.0"),
        Rule(f"{_CROSS}.kv_dwconv", "interaction.key_value.1"),
        *(rule for level in range(3) for rule in _cross(level)),
        Rule("up.0", "last.0"),
    ]


HAUNET = Layout(
    "HAUNet",
    "haunet",
    lambda state: any(name.startswith("lateral_nafblock.") for name in state),
    _options,
    _rules,
)
