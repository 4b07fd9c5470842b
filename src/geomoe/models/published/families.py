"""All layouts that are known, in the order in which a file is compared with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from geomoe.errors import GeomoeError
from geomoe.models.published.convolutional import EDSR, EDSR_ORIGINAL, RCAN, RCAN_ORIGINAL
from geomoe.models.published.hat import HAT
from geomoe.models.published.haunet import HAUNET
from geomoe.models.published.layout import Layout, State
from geomoe.models.published.mfg_hmoe import MFG_HMOE
from geomoe.models.published.rrdbnet import ESRGAN, ESRGAN_FIRST, RRDBNET
from geomoe.models.published.spt import SPT
from geomoe.models.published.swin2_mose import SWIN2_MOSE
from geomoe.models.published.swinir import SWINIR
from geomoe.models.published.ttst import TTST
from geomoe.models.registry import build, config_of, list_models

__all__ = ["LAYOUTS", "best_name", "recognise"]

LAYOUTS: tuple[Layout, ...] = (
    HAUNET,
    SPT,
    SWIN2_MOSE,
    TTST,
    MFG_HMOE,
    HAT,
    SWINIR,
    RRDBNET,
    ESRGAN,
    ESRGAN_FIRST,
    RCAN,
    RCAN_ORIGINAL,
    EDSR,
    EDSR_ORIGINAL,
)
"""Those that build on others before the others: TTST's files hold all that HAT's are known by, and
those all that SwinIR's are."""

_RELATIVES = {
    "absolute_pos_embed": "a SwinIR with absolute position codes",
    "cpb_mlp": "a Swin2SR",
    "conv1x1": "an ESRGAN+",
    "conv_first.1.": "a network that folds its input first",
    "head.1.": "a network that folds its input first",
}
"""Networks that look like known ones, by a part of a name that those do not have."""

_NO_STRUCTURE = ("scale", "bands", "mean", "border", "residual_scale")


def recognise(state: State) -> Layout:
    """The layout of a published state; raises GeomoeError for any other."""
    known = "; there are: " + ", ".join(sorted({layout.name for layout in LAYOUTS}))
    for part, what in _RELATIVES.items():
        if any(f".{part}" in f".{name}." for name in state):
            raise GeomoeError(f"it is {what}, which is not known here{known}")
    for layout in LAYOUTS:
        if layout.recognises(state):
            return layout
    raise GeomoeError(f"its tensors are of no network that is known here{known}")


def best_name(model: str, config: Any) -> str:
    """The name in the registry for ``config``: of the size of ``model``'s network that it differs least from.

    Of sizes that differ in as many options it is the one nearest in parameters.
    """
    options = asdict(config)
    told = {key: value for key, value in options.items() if key in _NO_STRUCTURE}
    family = type(config_of(model, {}))
    apart = {}
    for name in list_models("image"):
        other = config_of(name, told if type(config_of(name, {})) is family else {})
        if type(other) is family:
            apart[name] = sum(getattr(other, key) != value for key, value in options.items())
    least = [name for name, count in apart.items() if count == min(apart.values())]
    if len(least) == 1:
        return least[0]
    size = _numbers(model, options)
    return min(least, key=lambda name: abs(math.log(_numbers(name, told) / size)))


def _numbers(model: str, options: Mapping[str, Any]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(model, options).parameters())
