"""The map of which expert drew each pixel."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.pipeline.runner import Upscaler
from geomoe.raster.metadata import CogMetadata, same_place
from geomoe.raster.scene import Scene

__all__ = ["BANDS", "expert_layers", "expert_metadata"]

BANDS = ("group", "expert", "confidence")
_MOST = 255


def expert_metadata(scene: Scene, upscaler: Upscaler, tags: Mapping[str, str]) -> CogMetadata:
    """Metadata of an expert map: the source's grid, three uint8 bands, 0 where the source is not valid.

    Raises:
        GeomoeError: a model without experts to choose from.
    """
    legend = {
        "bands": {
            "group": "first choice, 1..groups",
            "expert": "first choice, its place in the group, 1..experts",
            "confidence": "probability of the first choice, 1..255 for 0..1",
        },
        "nodata": 0,
        "layer": "the last layer that routes, first group of bands",
        "model": upscaler.name,
    }
    config = getattr(upscaler.model, "config", None)
    if getattr(config, "head", "routed") != "routed":
        raise GeomoeError(
            f"{upscaler.name} has one expert for all pixels, no map to draw; leave out --experts"
        )
    kernels, members = (getattr(config, name, None) for name in ("kernel_sizes", "group_sizes"))
    if kernels is not None:
        legend["groups"] = [
            {"group": i, "kernel_size": k, **({} if members is None else {"experts": members[i - 1]})}
            for i, k in enumerate(kernels, 1)
        ]
    return same_place(
        scene,
        dtype="uint8",
        descriptions=BANDS,
        scales=(1.0, 1.0, 1 / 255),
        nodata=0,
        tags={**tags, "GEOMOE_LEGEND": json.dumps(legend, sort_keys=True)},
    )


def expert_layers(trace: RoutingTrace, name: str, height: int, width: int) -> NDArray[np.uint8]:
    """The three bands of the map for one tile, from the last layer that routed.

    Args:
        trace: of a pass over one image of ``height`` x ``width`` pixels. A model that pads may route more
            pixels, at the bottom and on the right; they are dropped.
        name: of the model, for messages.
        height: of the image.
        width: of the image.

    Returns:
        ``[3, height, width]`` uint8: group, expert, confidence; none of them 0.

    Raises:
        GeomoeError: if nothing was routed, or not pixel by pixel.
    """
    if not len(trace):
        raise GeomoeError(f"{name} routes nothing, so there are no experts to map; leave out --experts")
    plan = trace[-1]
    images, rows, columns = plan.grid
    if images != 1 or rows < height or columns < width or plan.experts.shape[0] != rows * columns:
        raise GeomoeError(
            f"{name} routes a grid of {columns} x {rows} for {width} x {height} pixels; "
            "expected one choice a pixel, leave out --experts"
        )
    if len(plan.group_sizes) > _MOST or max(plan.group_sizes) > _MOST:
        raise GeomoeError(f"{name} has more than {_MOST} groups or experts a group; leave out --experts")
    layers = np.stack([_first(plan, band) for band in BANDS])  # [3, N]
    return layers.reshape(3, rows, columns)[:, :height, :width]


def _first(plan: RoutingPlan, band: str) -> NDArray[np.uint8]:
    if band == "confidence":
        share = np.rint(plan.confidence.float().cpu().numpy() * _MOST)
        shares: NDArray[np.uint8] = np.clip(share, 1, _MOST).astype(np.uint8)
        return shares
    chosen = plan.groups if band == "group" else plan.members
    numbers: NDArray[np.uint8] = (chosen[:, 0] + 1).cpu().numpy().astype(np.uint8)
    return numbers
