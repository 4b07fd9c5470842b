"""One whole image through a model, and which expert drew each of its pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.evaluation.expert_maps import ExpertMap, expert_map, main_experts, why_no_map
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline.runner import Predictor, Runner
from geomoe.pipeline.tiles import Box, Tiles

__all__ = ["super_resolve"]


def super_resolve(
    model: Predictor, low: Tensor, tiles: Tiles, runner: Runner, layer: int, advance: Callable[[], None]
) -> tuple[Tensor, ExpertMap | None, str]:
    """The result of a model, tile by tile, and the map of the experts of one layer.

    Args:
        model: any number of bands of ``low`` go through it, as in ``geomoe upscale``.
        low: ``[C, h, w]`` in about [0, 1].
        tiles: of ``low``.
        runner: of the model.
        layer: of those that route, from 1, or from the last by -1.
        advance: called after every tile.

    Returns:
        ``[C, H, W]`` float32; the map, or None and why there is none, in words.

    Raises:
        GeomoeError: the model gave NaN or infinity.
    """
    scale, data = model.contract.scale, low.numpy()
    out = np.empty((len(data), *(n * scale for n in data.shape[1:])), dtype=np.float32)
    experts: ExpertMap | None = None
    why = ""
    for tile in tiles:
        window, (rows, columns) = tile.window, tile.inner
        traces: list[RoutingTrace] = []
        large = runner(np.ascontiguousarray(data[(slice(None), *_slices(window))]), traces.append)
        trace = traces[0]
        if not np.isfinite(large).all():
            raise GeomoeError(f"{model.name} gave NaN or infinity on this image; use other weights")
        inner = (slice(s.start * scale, s.stop * scale) for s in (rows, columns))
        out[(slice(None), *_slices(tile.core, scale))] = large[(slice(None), *inner)]
        why = why_no_map(model.model, trace, layer, window.height, window.width)
        if not why:
            if experts is None:
                single: Literal["image", "tile"] = "image" if len(tiles) == 1 else "tile"
                of_pixels = len(trace[layer - (layer > 0)].grid) == 3
                empty = np.full(low.shape[1:], -1, dtype=np.int64)
                experts = expert_map(model.model, trace, layer, "pixel" if of_pixels else single, empty)
            main = main_experts(trace, layer, window.height, window.width)
            experts.experts[_slices(tile.core)] = main[rows, columns]
        advance()
    return torch.from_numpy(out), experts, why


def _slices(box: Box, scale: int = 1) -> tuple[slice, slice]:
    """Rows and columns of a box, on a grid finer by ``scale``."""
    return (
        slice(box.y * scale, (box.y + box.height) * scale),
        slice(box.x * scale, (box.x + box.width) * scale),
    )
