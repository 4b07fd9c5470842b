"""SpatialMoE: every pixel of a feature map through the convolutions that a router chose for it.

After the head of MFG-HMoE (Chen et al. 2025, equations 4 to 7): experts are convolutions, in groups of one
kernel size, and see each pixel's true neighbours, whichever experts those went to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from geomoe.models.options import ModelConfig
from geomoe.models.sparse_ffn import OF_ALL, ROUTERS, check_router
from geomoe.models.twin import EvenExperts, GatedTwin, Mixture, Twin, twin_of, twin_width
from geomoe.moe.experts.convolution import ConvExperts, HeterogeneousBank
from geomoe.moe.layers.layer import MoE
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.routing.published import dual_router, single_router
from geomoe.moe.routing.router import Router
from geomoe.moe.units import Neighbourhoods, Pixels

__all__ = ["SpatialConfig", "SpatialMoE", "SpatialTwin", "mix_pixels", "route_pixels"]

GROUPED: dict[str, Callable[..., Router]] = {"dual": dual_router, "single": single_router}
"""Routers that know the groups of experts."""


@dataclass(frozen=True)
class SpatialConfig(ModelConfig):
    """Options of a network with mixtures of convolutions.

    Attributes:
        kernel_sizes: odd side of the kernels of each group of experts.
        experts: in each group.
        router: ``dual`` (a group, then an expert of it), ``single`` (one gate over all), or one of
            :data:`geomoe.models.sparse_ffn.ROUTERS` that chooses for each pixel by itself.
        router_options: of that router, beside width and experts, such as ``{top_k: 2}``.
        twin: what replaces the mixtures; see :data:`geomoe.models.twin.Twin`.
    """

    kernel_sizes: tuple[int, ...] = (1, 3)
    experts: int = 4
    router: str = "noisy_top_k"
    router_options: dict[str, Any] = field(default_factory=dict)
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(size % 2 == 0 for size in self.kernel_sizes):
            raise ValueError(f"kernel_sizes={self.kernel_sizes!r}: expected odd numbers")
        # With those that look at all pixels, tiles would not be what the whole scene is.
        alone = {name: router for name, router in ROUTERS.items() if name not in OF_ALL}
        check_router(self.router, self.router_options, {**GROUPED, **alone})

    @property
    def spatial_reach(self) -> int:
        """Pixels that an expert sees beyond its own."""
        return max(self.kernel_sizes) // 2


def _router(c: SpatialConfig, channels: int) -> Router:
    sizes = (c.experts,) * len(c.kernel_sizes)
    if c.router in GROUPED:
        return GROUPED[c.router](channels, sizes, **c.router_options)
    return ROUTERS[c.router](channels, sum(sizes), **c.router_options)


def _mixture(c: SpatialConfig, channels: int, outputs: int) -> MoE:
    groups = [ConvExperts(channels, outputs, size, c.experts) for size in c.kernel_sizes]
    return MoE(_router(c, channels), HeterogeneousBank(groups))


class SpatialMoE(nn.Module):
    """Experts of each kernel size, from ``channels`` to ``outputs``; each pixel by some of them.

    Args:
        config: which experts and router.
        channels: of the features.
        outputs: of the result.
    """

    def __init__(self, config: SpatialConfig, channels: int, outputs: int) -> None:
        super().__init__()
        mixture = _mixture(config, channels, outputs)
        self.moe = twin_of(mixture, config.twin, lambda: SpatialTwin(mixture, config.twin, channels, outputs))

    def forward(self, x: Tensor, valid: Tensor | None = None, trace: RoutingTrace | None = None) -> Tensor:
        """``[B, C, H, W]`` to ``[B, outputs, H, W]``; see :func:`route_pixels`."""
        return route_pixels(self.moe, x, valid=valid, trace=trace)


class SpatialTwin(nn.Sequential):
    """A dense layer for a mixture of convolutions: its largest kernel, GELU, and a 1x1 convolution.

    Two convolutions, for one that is as large as several of the same reach would be no larger.

    Args:
        mixture: that it stands for.
        twin: what is to be equal.
        channels: of the features.
        outputs: of the result.
        beside: parameters outside of the mixture that its router alone makes use of.
    """

    def __init__(self, mixture: Mixture, twin: Twin, channels: int, outputs: int, beside: int = 0) -> None:
        reach = mixture.bank.reach
        size = 2 * reach + 1
        hidden = twin_width(mixture, twin, size**2 * channels + 1 + outputs, beside)
        super().__init__(
            nn.Conv2d(channels, hidden, size, padding=reach), nn.GELU(), nn.Conv2d(hidden, outputs, 1)
        )


def mix_pixels(config: SpatialConfig, channels: int, outputs: int) -> SpatialMoE | SpatialTwin:
    """A mixture of convolutions, or the dense layer that stands for one."""
    if config.twin not in ("active", "parameters"):
        return SpatialMoE(config, channels, outputs)
    with torch.device("meta"):
        mixture = _mixture(config, channels, outputs)
    return SpatialTwin(mixture, config.twin, channels, outputs)


def route_pixels(
    moe: MoE | GatedTwin | EvenExperts,
    x: Tensor,
    signals: Tensor | None = None,
    valid: Tensor | None = None,
    trace: RoutingTrace | None = None,
) -> Tensor:
    """Every pixel of ``x`` through experts that are convolutions.

    Args:
        moe: with a bank of convolutions, or a twin of such.
        x: ``[B, C, H, W]``, what the experts see.
        signals: ``[B, R, H, W]``, what the router sees; ``x`` itself if not given.
        valid: ``[B, H, W]`` bool, pixels that there are; the others have no expert, count nowhere and give 0.
        trace: the plan is recorded there, a row for each pixel; its grid is ``(B, H, W)``.

    Returns:
        ``[B, outputs, H, W]``.
    """
    # The expert of a gated twin sees the image, and puts the border that it wants around it.
    reach = 0 if isinstance(moe, GatedTwin) else moe.bank.reach
    pixels, around = Pixels.of(x), Neighbourhoods.of(x, reach)
    shown = pixels.to_rows(x if signals is None else signals)
    there = None if valid is None else valid.reshape(-1)
    return pixels.from_rows(moe(around, shown, grid=pixels.grid, valid=there, trace=trace))
