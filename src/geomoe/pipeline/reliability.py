"""Where a model is shown what its training did not have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geomoe.errors import GeomoeError
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.router import AnyRouter
from geomoe.pipeline.experts import on_pixels, unit_of
from geomoe.pipeline.runner import Upscaler

__all__ = ["Heard", "Judge", "last_router"]

Heard = list[tuple[Tensor, RoutingPlan]]
"""Of each call of a router: the rows ``[N, C]`` that it was shown, and its plan."""

_SIDE = 8


def last_router(upscaler: Upscaler) -> nn.Module | None:
    """The router that runs last in a pass of the model; ``None`` where none does."""
    order: list[nn.Module] = []
    routers = [module for module in upscaler.model.modules() if isinstance(module, AnyRouter)]
    hooks = [router.register_forward_hook(lambda module, *_: order.append(module)) for router in routers]
    place = next((p.device for p in upscaler.model.parameters()), torch.device("cpu"))
    try:
        with torch.inference_mode():
            upscaler.model.eval()(torch.zeros(1, upscaler.contract.bands, _SIDE, _SIDE, device=place))
    finally:
        for hook in hooks:
            hook.remove()
    return order[-1] if order else None


class Judge:
    """Compares what a model's last router is shown with what it was shown in training.

    Args:
        upscaler: model and weights.

    Raises:
        GeomoeError: if it routes nothing, or its weights bring no reference.
    """

    def __init__(self, upscaler: Upscaler) -> None:
        self._name = upscaler.name
        router, reference = last_router(upscaler), upscaler.reference
        if router is None:
            raise GeomoeError(
                f"{upscaler.name} routes nothing that could tell what training did not have; "
                "leave out --reliability and --fallback"
            )
        if reference is None:
            raise GeomoeError(
                f"{upscaler.name} brings no routing reference; learn it from its training data with "
                "geomoe calibrate, or leave out --reliability and --fallback"
            )
        self._router, self.reference = router, reference
        self._here = threading.local()

    @contextmanager
    def attached(self) -> Iterator[Self]:
        """While it lasts, the router can be listened to. Once for a job: hooks are shared by threads."""

        def keep(_: nn.Module, shown: tuple[Any, ...], plan: RoutingPlan) -> None:
            heard: Heard | None = getattr(self._here, "heard", None)
            if heard is not None:
                heard.append((shown[0], plan))

        hook = self._router.register_forward_hook(keep)
        try:
            yield self
        finally:
            hook.remove()

    @contextmanager
    def listen(self) -> Iterator[Heard]:
        """What the router is shown by this thread while it lasts; others may run the model too."""
        heard: Heard = []
        self._here.heard = heard
        try:
            yield heard
        finally:
            self._here.heard = None

    def __call__(self, heard: Heard, height: int, width: int) -> NDArray[np.float64]:
        """How unusual each pixel is, ``[height, width]``: above 1, unlike training.

        Args:
            heard: over the passes for one image; the most unusual of them counts.
            height: of the image.
            width: of the image.

        Raises:
            GeomoeError: if the model routes neither pixels nor whole images.
        """
        surprise = np.zeros((height, width))
        for rows, plan in heard:
            if unit_of(plan, height, width) is None:
                raise GeomoeError(
                    f"{self._name} routes neither pixels nor whole images; "
                    "leave out --reliability and --fallback"
                )
            if rows.shape[1] != len(self.reference.mean):
                raise GeomoeError(
                    f"the routing reference of {self._name} is for {len(self.reference.mean)} channels, its "
                    f"router sees {rows.shape[1]}; write it anew with geomoe calibrate"
                )
            pixels = on_pixels(plan, self.reference.surprise(rows).numpy(), height, width)
            surprise = np.maximum(surprise, pixels)
        return surprise
