"""The map of which expert drew each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomoe.errors import GeomoeError
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.pipeline.layers.base import DoneTile
from geomoe.pipeline.layers.routing import (
    cell_of,
    is_gated,
    kernel_sizes,
    on_pixels,
    routed_layers,
    unit_of,
)
from geomoe.pipeline.runner import Predictor
from geomoe.raster.read.scene import Scene
from geomoe.raster.write.metadata import CogMetadata, same_place

__all__ = ["BANDS", "Experts", "expert_bands", "layer"]

BANDS = ("group", "expert", "confidence", "entropy")
_MOST = 255


class Experts:
    """Which expert drew each pixel, by the last layer that routes; see :func:`expert_bands`."""

    name = "experts"
    routed, judged = True, False
    of = ()
    record: Mapping[str, Any] = {}

    def __init__(self, model: Predictor) -> None:
        self._model = model
        self._multiple = 1 if model.contract.tiling is None else model.contract.tiling.multiple
        self._legend: dict[str, Any] = {}

    def metadata(self, scene: Scene, bands: Sequence[int]) -> CogMetadata:
        scales = (1.0, 1.0, 1 / _MOST, 1 / _MOST)
        return same_place(scene, dtype="uint8", descriptions=BANDS, scales=scales, nodata=0)

    def blank(self, bands: int, height: int, width: int) -> NDArray[np.uint8]:
        return np.zeros((len(BANDS), height, width), dtype=np.uint8)

    def pixels(self, tile: DoneTile) -> NDArray[np.uint8]:
        made = expert_bands(tile.trace, self._model.name, *tile.size, self._multiple)[:, *tile.inner]
        if not self._legend:  # of one tile as of another: what differs is which experts were chosen
            self._legend = self._said(tile.trace, *tile.size)
        return made

    def legend(self) -> Mapping[str, Any]:
        return self._legend

    def _said(self, trace: RoutingTrace, height: int, width: int) -> dict[str, Any]:
        plan = trace[-1]
        kernels = kernel_sizes(self._model.model, plan) or (None,) * len(plan.group_sizes)
        return {
            "bands": {
                "group": "first choice, 1..groups",
                "expert": "first choice, its place in the group, 1..experts",
                "confidence": "probability of the first choice, 1..255 for 0..1",
                "entropy": "of the belief over all experts, as a share of the most there can be, "
                "1..255 for 0..1",
            },
            "choices": plan.top_k,
            "groups": [
                {"group": i, "experts": size, **({} if kernel is None else {"kernel_size": kernel})}
                for i, (size, kernel) in enumerate(zip(plan.group_sizes, kernels, strict=True), 1)
            ],
            "nodata": 0,
            "layer": f"the last of {len(trace)} that route, first group of bands",
            "model": self._model.name,
            "unit": self._unit(plan, height, width),
        }

    def _unit(self, plan: RoutingPlan, height: int, width: int) -> str:
        unit = unit_of(plan, height, width, self._multiple)
        if unit == "image":
            return "tile: one choice for all its pixels, made with the margin around it"
        side = cell_of(plan, height, width, self._multiple)
        return "pixel" if unit == "pixel" else f"squares of {side} x {side} pixels, one choice for each"


def layer(request: object, model: Predictor) -> Experts:
    """The map of a model that has layers that route."""
    if is_gated(model.model) or not routed_layers(model.model):
        raise _routes_nothing(model.name)
    return Experts(model)


def expert_bands(
    trace: RoutingTrace, name: str, height: int, width: int, multiple: int = 1
) -> NDArray[np.uint8]:
    """The four bands of the map for one tile, from the last layer that routed.

    Args:
        trace: of a pass over one image of ``height`` x ``width`` pixels.
        name: of the model, for messages.
        height: of the image.
        width: of the image.
        multiple: as of :func:`geomoe.pipeline.layers.routing.unit_of`.

    Returns:
        ``[4, height, width]`` uint8: group, expert, confidence, entropy; none of them 0. One choice for the
        whole image is that of all its pixels.

    Raises:
        GeomoeError: if nothing was routed, or neither pixels, squares of them, nor whole images.
    """
    if not len(trace):
        raise _routes_nothing(name)
    plan = trace[-1]
    if unit_of(plan, height, width, multiple) is None:
        grid = " x ".join(map(str, plan.grid[:0:-1]))
        raise GeomoeError(
            f"{name} routes a grid of {grid} for {width} x {height} pixels; "
            "expected one choice for each pixel or one for all, leave out --experts"
        )
    if len(plan.group_sizes) > _MOST or max(plan.group_sizes) > _MOST:
        raise GeomoeError(f"{name} has more than {_MOST} groups or experts a group; leave out --experts")
    return on_pixels(plan, np.stack([_first(plan, band) for band in BANDS]), height, width, multiple)


def _routes_nothing(name: str) -> GeomoeError:
    return GeomoeError(f"{name} routes nothing, so there are no experts to map; leave out --experts")


def _first(plan: RoutingPlan, band: str) -> NDArray[np.uint8]:
    if band in ("confidence", "entropy"):
        belief = plan.confidence if band == "confidence" else plan.entropy
        share = np.rint(belief.float().cpu().numpy() * _MOST)
        shares: NDArray[np.uint8] = np.clip(share, 1, _MOST).astype(np.uint8)
        return shares
    chosen = plan.groups if band == "group" else plan.members
    numbers: NDArray[np.uint8] = (chosen[:, 0] + 1).cpu().numpy().astype(np.uint8)
    return numbers
