"""Where a model is shown what its training did not have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geomoe.errors import GeomoeError
from geomoe.moe.plan import RoutingPlan
from geomoe.moe.router import AnyRouter
from geomoe.pipeline.layers.experts import on_pixels, unit_of
from geomoe.pipeline.runner import Upscaler

__all__ = ["Judge", "last_router"]

_SIDE = 8


def last_router(upscaler: Upscaler) -> nn.Module | None:
    """The router that runs last in a pass of the model; ``None`` where none does."""
    order: list[nn.Module] = []
    routers = [module for module in upscaler.model.modules() if isinstance(module, AnyRouter)]
    me = threading.get_ident()  # others may run the model at the same time

    def note(module: nn.Module, *_: object) -> None:
        if threading.get_ident() == me:
            order.append(module)

    hooks = [router.register_forward_hook(note) for router in routers]
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
        hook = self._router.register_forward_hook(self._hear)
        try:
            yield self
        finally:
            hook.remove()

    @contextmanager
    def listen(self, height: int, width: int) -> Iterator[NDArray[np.float64]]:
        """How unusual each pixel is of an image that this thread shows the model while it lasts.

        Args:
            height: of the image.
            width: of the image.

        Yields:
            ``[height, width]``, filled as the model runs; of several passes the most unusual counts. Above 1:
            unlike training.

        Raises:
            GeomoeError: from the model's pass, if it routes neither pixels nor whole images.
        """
        self._here.surprise = surprise = np.zeros((height, width))
        try:
            yield surprise
        finally:
            self._here.surprise = None

    def _hear(self, _: nn.Module, shown: tuple[Any, ...], plan: RoutingPlan) -> None:
        surprise: NDArray[np.float64] | None = getattr(self._here, "surprise", None)
        if surprise is None:  # another job of this process, on the same model
            return
        if unit_of(plan, *surprise.shape) is None:
            raise GeomoeError(
                f"{self._name} routes neither pixels nor whole images; leave out --reliability and --fallback"
            )
        if shown[0].shape[1] != len(self.reference.mean):
            raise GeomoeError(
                f"the routing reference of {self._name} is for {len(self.reference.mean)} channels, its "
                f"router sees {shown[0].shape[1]}; write it anew with geomoe calibrate"
            )
        pixels = on_pixels(plan, self.reference.surprise(shown[0]).numpy(), *surprise.shape)
        np.maximum(surprise, pixels, out=surprise)
