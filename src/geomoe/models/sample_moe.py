"""SampleMoE: the whole features of each sample through the networks that a pooled gate chose for it.

Experts are of unlike kinds, say a convolution beside global context; the router sees the mean and the
standard deviation of every channel over the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.models.sparse_ffn import OF_ALL, ROUTERS
from geomoe.models.twin import Twin, twin_of
from geomoe.moe import ModuleExperts, MoE, Router, Samples, pooled
from geomoe.moe.plan import RoutingTrace

__all__ = ["MIXERS", "SAMPLE_ROUTERS", "GlobalContext", "SampleMoE"]

SAMPLE_ROUTERS: dict[str, Callable[..., Router]] = {
    name: router for name, router in ROUTERS.items() if name not in OF_ALL
}
"""Those that choose for each sample by itself, so that a result does not depend on the batch."""


class GlobalContext(nn.Module):
    """A 3x3 depthwise convolution of ``[B, C, H, W]``, its channels weighed by their means over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = _depthwise(3)(channels)
        self.gate = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.local(x) * F.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        return out


def _depthwise(kernel: int, dilation: int = 1) -> Callable[[int], nn.Module]:
    reach = kernel // 2 * dilation
    return lambda channels: nn.Conv2d(
        channels, channels, kernel, padding=reach, dilation=dilation, groups=channels
    )


MIXERS: dict[str, Callable[[int], nn.Module]] = {
    "local": _depthwise(3),
    "wide": _depthwise(7),
    "dilated": _depthwise(3, dilation=3),
    "context": GlobalContext,
}
"""Experts that mix the pixels of ``[B, C, H, W]``, made for C channels, by name."""


class SampleMoE(nn.Module):
    """Each sample by some of several networks.

    Args:
        router: of 2 C channels; knows as many experts as there are.
        experts: modules from ``[B, C, H, W]`` to results of one shape.
        twin: what replaces the mixture.

    Raises:
        ValueError: a router of another number of experts.
    """

    def __init__(self, router: Router, experts: Sequence[nn.Module], twin: Twin = "none") -> None:
        super().__init__()
        self.moe = twin_of(MoE(router, ModuleExperts(experts)), twin)

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """``[B, C, H, W]`` to what experts give; the plan has a row for each sample."""
        return self.moe(x, pooled(x), grid=Samples.of(x).grid, trace=trace)  # type: ignore[no-any-return]
