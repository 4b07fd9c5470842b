"""RRDBNet in its three layouts: BasicSR's and Real-ESRGAN's, and the two of ESRGAN."""

from __future__ import annotations

from typing import Any

from geomoe.models.published.layout import Layout, Rule, State
from geomoe.models.published.shapes import count, expect, numbered, root, shape
from geomoe.models.super_resolution.rrdbnet import RrdbNetConfig

__all__ = ["ESRGAN", "ESRGAN_FIRST", "RRDBNET"]


def _dense(block: str, ending: str = "") -> list[Rule]:
    """Rules of three dense blocks of five convolutions, which are numbered from 1 there."""
    rules = []
    for dense in range(3):
        theirs, ours = f"{block}{dense + 1}.conv", f"body.{{i}}.body.{dense}"
        rules += [Rule(f"{theirs}{k + 1}{ending}", f"{ours}.convs.{k}") for k in range(4)]
        rules.append(Rule(f"{theirs}5{ending}", f"{ours}.last"))
    return rules


def _options(state: State, first: str, grows: str, last: str, blocks: int, ups: int) -> dict[str, Any]:
    width, columns = shape(state, first)[:2]
    bands = shape(state, last)[0]
    expect(bands > 0 and columns % bands == 0, f"{columns} channels come in and {bands} go out")
    fold = root(columns // bands)
    expect(ups < 8 and 2**ups % fold == 0, f"it enlarges {ups} times by 2 what was folded by {fold}")
    scale = 2**ups // fold
    return {
        "scale": scale,
        "bands": bands,
        "width": width,
        "growth": shape(state, grows)[0],
        "blocks": blocks,
        **({"unshuffle": fold > 1} if scale == 2 else {}),
    }


def _ups(c: RrdbNetConfig) -> int:
    return (c.scale * c.fold).bit_length() - 1


RRDBNET = Layout(
    "RRDBNet",
    "rrdbnet",
    lambda state: any(".rdb1." in name for name in state),
    lambda state: _options(
        state,
        "conv_first.weight",
        "body.0.rdb1.conv1.weight",
        "conv_last.weight",
        count(state, "body.{i}."),
        numbered(state, "conv_up"),
    ),
    lambda c: [
        Rule("conv_first", "shallow"),
        *_dense("body.{i}.rdb"),
        Rule("conv_body", f"body.{c.blocks}"),
        *(Rule(f"conv_up{u + 1}", f"ups.{u}") for u in range(_ups(c))),
        Rule("conv_hr", "high"),
        Rule("conv_last", "last"),
    ],
)

ESRGAN = Layout(
    "ESRGAN",
    "rrdbnet",
    lambda state: any(name.startswith("RRDB_trunk.") for name in state),
    lambda state: _options(
        state,
        "conv_first.weight",
        "RRDB_trunk.0.RDB1.conv1.weight",
        "conv_last.weight",
        count(state, "RRDB_trunk.{i}."),
        numbered(state, "upconv"),
    ),
    lambda c: [
        Rule("conv_first", "shallow"),
        *_dense("RRDB_trunk.{i}.RDB"),
        Rule("trunk_conv", f"body.{c.blocks}"),
        *(Rule(f"upconv{u + 1}", f"ups.{u}") for u in range(_ups(c))),
        Rule("HRconv", "high"),
        Rule("conv_last", "last"),
    ],
)


def _first_options(state: State) -> dict[str, Any]:
    ups = 0
    while f"model.{3 * ups + 3}.weight" in state:
        ups += 1
    return _options(
        state,
        "model.0.weight",
        "model.1.sub.0.RDB1.conv1.0.weight",
        f"model.{3 * ups + 4}.weight",
        count(state, "model.1.sub.{i}.") - 1,
        ups,
    )


ESRGAN_FIRST = Layout(
    "ESRGAN",
    "rrdbnet",
    lambda state: any(name.startswith("model.1.sub.") for name in state),
    _first_options,
    lambda c: [
        Rule("model.0", "shallow"),
        *_dense("model.1.sub.{i}.RDB", ending=".0"),
        Rule(f"model.1.sub.{c.blocks}", f"body.{c.blocks}"),
        *(Rule(f"model.{3 * u + 3}", f"ups.{u}") for u in range(_ups(c))),
        Rule(f"model.{3 * _ups(c) + 2}", "high"),
        Rule(f"model.{3 * _ups(c) + 4}", "last"),
    ],
)
