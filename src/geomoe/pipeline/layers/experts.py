"""The map of which expert drew each pixel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.pipeline.runner import Upscaler
from geomoe.raster.metadata import CogMetadata, same_place
from geomoe.raster.scene import Scene

__all__ = [
    "BANDS",
    "expert_layers",
    "expert_metadata",
    "is_gated",
    "kernel_sizes",
    "on_pixels",
    "routing_of",
    "unit_of",
]

BANDS = ("group", "expert", "confidence", "entropy")
_MOST = 255
_SIDE = 8


def is_gated(upscaler: Upscaler) -> bool:
    """Whether a model's plan is a gate on the one expert that there is, so that nothing is chosen."""
    return getattr(getattr(upscaler.model, "config", None), "head", "routed") == "gated"


def routing_of(upscaler: Upscaler) -> RoutingTrace:
    """The plans of a pass over a small black image: what a model routes, known before the work starts.

    There are as many as layers that route, none for a model without experts.
    """
    if is_gated(upscaler):
        return RoutingTrace()
    place = next((p.device for p in upscaler.model.parameters()), torch.device("cpu"))
    trace = RoutingTrace()
    with torch.inference_mode():
        upscaler.model.eval()(
            torch.zeros(1, upscaler.contract.bands, _SIDE, _SIDE, device=place), trace=trace
        )
    return trace


def unit_of(plan: RoutingPlan, height: int, width: int) -> Literal["pixel", "image"] | None:
    """What one image's plan decides on: every pixel, the image as a whole, or something without a map.

    Args:
        plan: of a pass over one image. A model that pads may route more pixels, at the bottom and right.
        height: of the image.
        width: of the image.
    """
    if plan.grid == (1,) and plan.num_rows == 1:
        return "image"
    if len(plan.grid) != 3 or plan.grid[0] != 1 or plan.num_rows != plan.grid[1] * plan.grid[2]:
        return None
    return "pixel" if plan.grid[1] >= height and plan.grid[2] >= width else None


def on_pixels(plan: RoutingPlan, values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Values of a plan's rows, ``[..., N]``, on the pixels of its one image: ``[..., height, width]``.

    A plan for whole images gives every pixel the same value; pixels that a model padded are dropped.

    Raises:
        ValueError: a plan of which :func:`unit_of` is None.
    """
    unit = unit_of(plan, height, width)
    if unit is None:
        raise ValueError(
            f"a plan with grid {plan.grid} is none for the {width} x {height} pixels of one image"
        )
    if unit == "image":
        return np.broadcast_to(values[..., None], (*values.shape[:-1], height, width))
    return values.reshape(*values.shape[:-1], *plan.grid[1:])[..., :height, :width]


def kernel_sizes(upscaler: Upscaler, plan: RoutingPlan) -> tuple[int, ...] | None:
    """The kernel size of each group of experts, where the model says it."""
    sizes = getattr(getattr(upscaler.model, "config", None), "kernel_sizes", None)
    return tuple(sizes) if sizes is not None and len(sizes) == len(plan.group_sizes) else None


def expert_metadata(scene: Scene, upscaler: Upscaler, tags: Mapping[str, str]) -> CogMetadata:
    """Metadata of an expert map: the source's grid, four uint8 bands, 0 where the source is not valid.

    Raises:
        GeomoeError: for a model that routes nothing, or nothing that can be shown on pixels.
    """
    trace = routing_of(upscaler)
    plan = _last(trace, upscaler.name, _SIDE, _SIDE)
    kernels = kernel_sizes(upscaler, plan) or (None,) * len(plan.group_sizes)
    legend = {
        "bands": {
            "group": "first choice, 1..groups",
            "expert": "first choice, its place in the group, 1..experts",
            "confidence": "probability of the first choice, 1..255 for 0..1",
            "entropy": "of the belief over all experts, as a share of the most there can be, 1..255 for 0..1",
        },
        "choices": plan.top_k,
        "groups": [
            {"group": i, "experts": size, **({} if kernel is None else {"kernel_size": kernel})}
            for i, (size, kernel) in enumerate(zip(plan.group_sizes, kernels, strict=True), 1)
        ],
        "nodata": 0,
        "layer": f"the last of {len(trace)} that route, first group of bands",
        "model": upscaler.name,
        "unit": "pixel"
        if unit_of(plan, _SIDE, _SIDE) == "pixel"
        else "tile: one choice for all its pixels, made with the margin around it",
    }
    return same_place(
        scene,
        dtype="uint8",
        descriptions=BANDS,
        scales=(1.0, 1.0, 1 / 255, 1 / 255),
        nodata=0,
        tags={**tags, "GEOMOE_LEGEND": json.dumps(legend, sort_keys=True)},
    )


def expert_layers(trace: RoutingTrace, name: str, height: int, width: int) -> NDArray[np.uint8]:
    """The four bands of the map for one tile, from the last layer that routed.

    Args:
        trace: of a pass over one image of ``height`` x ``width`` pixels.
        name: of the model, for messages.
        height: of the image.
        width: of the image.

    Returns:
        ``[4, height, width]`` uint8: group, expert, confidence, entropy; none of them 0. One choice for the
        whole image is that of all its pixels.

    Raises:
        GeomoeError: if nothing was routed, or neither pixels nor whole images.
    """
    plan = _last(trace, name, height, width)
    return on_pixels(plan, np.stack([_first(plan, band) for band in BANDS]), height, width)


def _last(trace: RoutingTrace, name: str, height: int, width: int) -> RoutingPlan:
    """The plan of the last layer that routed, found fit for a map."""
    if not len(trace):
        raise GeomoeError(f"{name} routes nothing, so there are no experts to map; leave out --experts")
    plan = trace[-1]
    if unit_of(plan, height, width) is None:
        grid = " x ".join(map(str, plan.grid[:0:-1]))
        raise GeomoeError(
            f"{name} routes a grid of {grid} for {width} x {height} pixels; "
            "expected one choice for each pixel or one for all, leave out --experts"
        )
    if len(plan.group_sizes) > _MOST or max(plan.group_sizes) > _MOST:
        raise GeomoeError(f"{name} has more than {_MOST} groups or experts a group; leave out --experts")
    return plan


def _first(plan: RoutingPlan, band: str) -> NDArray[np.uint8]:
    if band in ("confidence", "entropy"):
        belief = plan.confidence if band == "confidence" else plan.entropy
        share = np.rint(belief.float().cpu().numpy() * _MOST)
        shares: NDArray[np.uint8] = np.clip(share, 1, _MOST).astype(np.uint8)
        return shares
    chosen = plan.groups if band == "group" else plan.members
    numbers: NDArray[np.uint8] = (chosen[:, 0] + 1).cpu().numpy().astype(np.uint8)
    return numbers
