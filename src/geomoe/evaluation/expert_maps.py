"""Expert maps of one image: which expert counts most for each pixel, and for how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from geomoe.errors import GeomoeError
from geomoe.models import LoadedModel
from geomoe.moe.pictures import expert_colours
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.pipeline.layers.routing import is_gated, kernel_sizes, on_pixels, routed_layers, unit_of
from geomoe.pipeline.runner import Predictor

__all__ = ["ExpertMap", "check_layer", "expert_map", "main_experts", "shared_by_experts", "why_no_map"]

_HUES = 8
"""That people with any common colour deficiency tell apart."""


@dataclass(frozen=True)
class ExpertMap:
    """What one layer of a model decided.

    Attributes:
        layer: its number among those that route, from 1.
        layers: how many route.
        unit: what was decided on; ``tile`` and ``image`` are one choice for all pixels of one, ``cell`` is a
            square of them, such as a token.
        group_sizes: experts in each group.
        kernel_sizes: of each group; None where the model has none to tell apart.
        experts: ``[h, w]`` int64 on the grid of the input, the expert that counts most, 0 to E - 1 over all
            groups; -1 where none does. Of a whole image, columns may be shared out by
            :func:`shared_by_experts`.
    """

    layer: int
    layers: int
    unit: Literal["pixel", "cell", "tile", "image"]
    group_sizes: tuple[int, ...]
    kernel_sizes: tuple[int, ...] | None
    experts: NDArray[np.int64]

    @property
    def colours(self) -> NDArray[np.uint8]:
        """``[E, 3]``: a hue for each expert of one group of few; else one for each group."""
        few = len(self.group_sizes) == 1 and self.group_sizes[0] <= _HUES
        sizes = (1,) * self.group_sizes[0] if few else self.group_sizes
        found: NDArray[np.uint8] = expert_colours(sizes).numpy()
        return found

    @property
    def picture(self) -> NDArray[np.uint8]:
        """``[h, w, 3]``, the experts in their colours, white where none counts."""
        drawn: NDArray[np.uint8] = np.vstack([self.colours, np.full((1, 3), 255, np.uint8)])[self.experts]
        return drawn

    @property
    def title(self) -> tuple[str, str]:
        """What it is a map of, and of which layer where there are several."""
        of = {"pixel": "each pixel", "cell": "each square", "tile": "each tile", "image": "the image"}
        layer = f"layer {self.layer} of the {self.layers} that route" if self.layers > 1 else ""
        return f"expert of {of[self.unit]}", layer

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of pixels of every expert, 0 to 1."""
        counts = np.bincount(self.experts[self.experts >= 0], minlength=sum(self.group_sizes))
        return tuple(float(count) / self.experts.size for count in counts)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every expert: its group, by kernel where there is one, and its place in it from 1."""
        if len(self.group_sizes) == 1:
            heads = [""]
        elif self.kernel_sizes is None or len(set(self.kernel_sizes)) < len(self.kernel_sizes):
            heads = [f"group {i} " for i in range(1, len(self.group_sizes) + 1)]
        else:
            heads = [f"{k}x{k} " for k in self.kernel_sizes]
        return tuple(
            f"{head}expert {place}"
            for head, size in zip(heads, self.group_sizes, strict=True)
            for place in range(1, size + 1)
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the map itself."""
        return {
            "layer": self.layer,
            "layers": self.layers,
            "unit": self.unit,
            "group_sizes": list(self.group_sizes),
            "kernel_sizes": None if self.kernel_sizes is None else list(self.kernel_sizes),
            "shares": dict(zip(self.names, self.shares, strict=True)),
        }


def check_layer(models: Sequence[Predictor | LoadedModel], layer: int) -> None:
    """Refuse a layer that no model has; one that some lack is said in the picture."""
    if layer == 0:
        raise GeomoeError("layers that route are counted from 1, and -1 is the last; there is no layer 0")
    routing = {m.name: 0 if is_gated(m.model) else routed_layers(m.model) for m in models}
    most = max(routing, key=lambda name: routing[name])
    if abs(layer) > max(routing[most], 1):
        raise GeomoeError(f"no model routes in {abs(layer)} layers; {most} does in {routing[most]}")


def why_no_map(
    model: nn.Module, trace: RoutingTrace, layer: int, height: int, width: int, multiple: int | None = 1
) -> str:
    """Why the plans of a pass over one image make no map, to follow on "it"; empty if they do."""
    if is_gated(model):
        return "has a gate and one expert"
    if not len(trace):
        return "routes nothing"
    if abs(layer) > len(trace):
        return f"routes in fewer than {abs(layer)} layers"
    plan = _plan(trace, layer)
    if plan.num_experts > 1 and bool((plan.gates == plan.gates[:1, :1]).all()):
        return "weighs all experts alike"
    return "" if unit_of(plan, height, width, multiple) else "routes neither pixels nor images"


def expert_map(
    model: nn.Module,
    trace: RoutingTrace,
    layer: int,
    unit: Literal["pixel", "cell", "tile", "image"],
    experts: NDArray[np.int64],
) -> ExpertMap:
    """Of one layer of a pass, counted from 1, or from the last by -1."""
    plan = _plan(trace, layer)
    place = range(1, len(trace) + 1)[_index(layer)]
    return ExpertMap(place, len(trace), unit, plan.group_sizes, kernel_sizes(model, plan), experts)


def main_experts(
    trace: RoutingTrace, layer: int, height: int, width: int, multiple: int | None = 1
) -> NDArray[np.int64]:
    """``[height, width]``, the expert that counts most for each pixel of one image; -1 where none does."""
    plan = _plan(trace, layer)
    found: NDArray[np.int64] = on_pixels(plan, plan.main.cpu().numpy(), height, width, multiple)
    return found


def shared_by_experts(trace: RoutingTrace, layer: int, height: int, width: int) -> NDArray[np.int64]:
    """``[height, width]``, the columns of an image shared out by the weights of the plan for all of it."""
    gates = _plan(trace, layer).gates[0].detach().clamp_min(0).double().cpu().numpy()
    if not gates.sum() > 0:
        return np.full((height, width), -1)
    ends = np.round(gates.cumsum() / gates.sum() * width)
    return np.broadcast_to(np.searchsorted(ends, np.arange(width), side="right"), (height, width))


def _index(layer: int) -> int:
    return layer - 1 if layer > 0 else layer


def _plan(trace: RoutingTrace, layer: int) -> RoutingPlan:
    return trace[_index(layer)]
