"""MFG-HMoE: Multi-level Feature Guided Heterogeneous Mixture of Experts.

Chen et al., "Heterogeneous Mixture of Experts for Remote Sensing Image Super-Resolution", IEEE
GRSL 2025. Equation numbers below are the paper's. The backbone is HAT's (Chen et al., CVPR 2023).

Where the paper is silent, we chose: signals for the routers are 64 wide (``router_width``), one
3x3 convolution a level brings them there; the encoding of the group is a learned embedding.

``mfg_hmoe_released`` is the network of the authors' program, which differs from the paper: each group's
result is normalised on its way to the next, signals are made by two convolutions a level and the trunk's last
norm, nothing is subtracted from the input, and routers, whose choice is hard, never learn.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.conv_trunk import ConvolutionBlock, ConvolutionTrunk
from geomoe.layers.convolution import BandMean, ResidualBlock
from geomoe.layers.hybrid import Conv3x3
from geomoe.layers.super_resolution.known import Informed
from geomoe.layers.windows import crop_to, pad_to_windows
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.registry import register
from geomoe.models.spatial_moe import SpatialTwin, route_pixels
from geomoe.models.super_resolution.hat import HybridOptions, hybrid_trunk
from geomoe.models.twin import EvenExperts, GatedTwin, Twin, twin_of
from geomoe.moe.experts.convolution import ConvExperts, HeterogeneousBank
from geomoe.moe.layers.layer import MoE
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.routing.published import dual_router, single_router
from geomoe.moe.routing.router import Router
from geomoe.moe.units import Pixels
from geomoe.moe.weights import RoutingMode

__all__ = ["MfgHmoe", "MfgHmoeConfig"]


@dataclass(frozen=True)
class MfgHmoeConfig(HybridOptions):
    """Everything that makes an :class:`MfgHmoe`. The defaults are the paper's.

    Attributes:
        trunk: ``hybrid`` (the paper's: HAT's); ``convolution``, wide-activation blocks with a norm; or
            ``residual``, the blocks of EDSR. Of the last two, which have no windows, ``embed_dim`` and
            ``depths`` are the width and the blocks; ``mlp_ratio`` widens the blocks of ``convolution``.
        kernel_sizes: kernel size of each of the N groups of experts.
        experts_per_group: M, the same in every group, or one number for each.
        top_k: K, experts run for each pixel.
        router: ``dual`` (the paper's: a group, then an expert of it), or ``single``, one gate over all.
        aggregation: how the routers' signals are made: as in the ``paper``, or as ``released``, with a norm
            in the trunk after each of its groups and routers that start as they do there.
        signals: what the routers see: ``levels`` (the paper's MFA), or the ``last`` RHAG alone, through the
            same convolutions.
        head: ``routed`` (the paper's), or what it is measured against: ``dense``, one 3x3 convolution as wide
            as an expert; ``gated``, the same times the weight that the routers give their first choice; or
            ``mlp``, two 1x1 convolutions with a GELU between, so wide there that they cost what routing and
            ``top_k`` experts of the largest kernel cost. None has experts, only ``gated`` has routers, and
            options that describe what is not there are without effect.
        twin: what replaces a routed head's mixture; see :data:`geomoe.models.twin.Twin`.
        routing: ``soft``, ``straight_through`` or ``hard``; see :data:`geomoe.moe.RoutingMode`.
        width: channels before the experts.
        expert_width: channels after an expert's pixel shuffle, where experts draw features.
        router_width: channels of the aggregated features that the routers see.
        draws: what an expert gives: ``features``, from which one last convolution makes the image (the
            paper's), or the ``image``, its bands at each fine pixel, which it then draws alone.
        base: what the network's result is added to: nothing (``none``, the paper's), or the input
            upsampled by ``bicubic`` interpolation, which a small network need not learn again.
        informed: whether the routers are told what is known of an image beside what they see of it; see
            :class:`geomoe.layers.super_resolution.known.Known`. Ours: the paper has one sensor and kernel.
    """

    mean: tuple[float, ...] = (0.5,)
    trunk: Literal["hybrid", "convolution", "residual"] = "hybrid"
    kernel_sizes: tuple[int, ...] = (1, 3)
    experts_per_group: int | tuple[int, ...] = 8
    top_k: int = 1
    router: Literal["dual", "single"] = "dual"
    aggregation: Literal["paper", "released"] = "paper"
    signals: Literal["levels", "last"] = "levels"
    head: Literal["routed", "gated", "dense", "mlp"] = "routed"
    twin: Twin = "none"
    routing: RoutingMode = "soft"
    width: int = 64
    expert_width: int = 64
    router_width: int = 64
    draws: Literal["features", "image"] = "features"
    base: Literal["none", "bicubic"] = "none"
    informed: bool = False

    GROWS: ClassVar[tuple[str, ...]] = ("informed",)
    """Options that weights trained without can be given: what they add starts at 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = self.experts_per_group
        if isinstance(sizes, tuple) and len(sizes) != len(self.kernel_sizes):
            raise ValueError(
                f"experts_per_group={sizes!r}: expected one number, or one for each of "
                f"kernel_sizes={self.kernel_sizes!r}"
            )
        if self.informed and self.head not in ("routed", "gated"):
            raise ValueError(
                f"informed=True: head={self.head!r} has no routers to tell; choose routed or gated"
            )
        if self.twin != "none" and self.head != "routed":
            raise ValueError(
                f"twin={self.twin!r}: head={self.head!r} has no mixture; leave one of the two out"
            )
        if self.informed and self.twin in ("active", "parameters"):
            raise ValueError(
                f"informed=True: twin={self.twin!r} has no router to tell; choose gated or frozen"
            )
        if self.aggregation == "released" and self.trunk != "hybrid":
            raise ValueError(f"aggregation='released': expected trunk='hybrid', not {self.trunk!r}")

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Experts in each group."""
        sizes = self.experts_per_group
        return (sizes,) * len(self.kernel_sizes) if isinstance(sizes, int) else sizes

    @property
    def seen(self) -> int:
        """Levels that the routers see."""
        return len(self.depths) if self.signals == "levels" else 1

    @property
    def routes(self) -> bool:
        """Whether there are routers."""
        return self.head == "gated" or (self.head == "routed" and self.twin not in ("active", "parameters"))

    @property
    def outputs(self) -> int:
        """Channels that an expert gives for each pixel, before its pixel shuffle."""
        return (self.expert_width if self.draws == "features" else self.bands) * self.scale**2


class MultiLevelAggregation(nn.Module):
    """MFA, equations 2 and 3: what the routers look at, from the output of every RHAG."""

    def __init__(self, dim: int, width: int, levels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Conv3x3(dim, width) for _ in range(levels))
        self.norm = nn.LayerNorm(width)
        self.conv = Conv3x3(width, width)

    def forward(self, features: list[Tensor]) -> Tensor:
        """L features ``[B, H, W, dim]`` to ``[B, H, W, width]``."""
        total = torch.stack(
            [F.leaky_relu(conv(x)) for conv, x in zip(self.levels, features, strict=True)]
        ).sum(0)
        return F.leaky_relu(self.conv(self.norm(total)))


class ReleasedAggregation(nn.Module):
    """MFA of the released program: two convolutions a level, and the trunk's last norm once more."""

    def __init__(self, dim: int, width: int, levels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(Conv3x3(dim, width), nn.LeakyReLU(), Conv3x3(width, dim)) for _ in range(levels)
        )
        self.conv = Conv3x3(dim, width)

    def forward(self, features: list[Tensor], norm: nn.Module) -> Tensor:
        """L features ``[B, H, W, dim]`` and the trunk's last norm to ``[B, H, W, width]``."""
        total = torch.stack([level(x) for level, x in zip(self.levels, features, strict=True)]).sum(0)
        return F.leaky_relu(self.conv(norm(total)))


def _router(c: MfgHmoeConfig) -> Router:
    sizes = c.group_sizes
    if c.router == "single":
        return single_router(c.router_width, sizes, c.top_k, c.routing)
    released = c.aggregation == "released"
    router = dual_router(c.router_width, sizes, c.top_k, c.routing, bias=released)
    if released:  # by its hard choice nothing will move them from where they start
        for name, parameter in router.score.named_parameters():
            if not name.endswith(".bias"):
                nn.init.normal_(parameter, std=1.0 if name == "group_embedding" else 0.02)
    return router


def _mlp(c: MfgHmoeConfig) -> nn.Module:
    """As costly as aggregation and ``top_k`` experts of the largest kernel."""
    experts = c.top_k * max(c.kernel_sizes) ** 2 * c.width * c.outputs
    aggregation = 9 * c.router_width * (c.embed_dim * c.seen + c.router_width)
    hidden = max((experts + aggregation) // (c.width + c.outputs), 1)
    return nn.Sequential(nn.Conv2d(c.width, hidden, 1), nn.GELU(), nn.Conv2d(hidden, c.outputs, 1))


class OneExpert(nn.Module):
    """The controls of routing: one network for every pixel, and perhaps the routers' gate on its result.

    What a routed head gains over the gated one is what choosing between experts is worth; what the gated one
    gains over the dense one is the modulation by the gate. Experts that are mixed, or a gate, make a head
    non-linear: what that alone is worth, ``mlp`` shows.
    """

    def __init__(self, c: MfgHmoeConfig) -> None:
        super().__init__()
        self.router = _router(c) if c.head == "gated" else None
        self.conv = _mlp(c) if c.head == "mlp" else nn.Conv2d(c.width, c.outputs, 3, padding=1)

    def forward(self, x: Tensor, signals: Tensor | None, trace: RoutingTrace | None) -> Tensor:
        out: Tensor = self.conv(x)
        if self.router is None or signals is None:
            return out
        pixels = Pixels.of(x)
        shown = pixels.to_rows(signals)
        plan = self.router(shown, pixels.grid)
        plan = plan if trace is None else trace.record(plan, self.router, shown)
        return out * pixels.from_rows(plan.weights[:, :1]).to(out.dtype)


class RoutedUpsampler(nn.Module):
    """DR-HMoE, equations 4 to 7: every pixel upsampled by the experts that its routers chose."""

    def __init__(self, c: MfgHmoeConfig) -> None:
        super().__init__()
        self.scale = c.scale
        self.narrow = nn.Conv2d(c.embed_dim, c.width, 3, padding=1)
        self.one = OneExpert(c) if c.head != "routed" else None
        self.routed = _routed(c) if c.head == "routed" else None
        draws_image = c.draws == "image"
        self.last = nn.Identity() if draws_image else nn.Conv2d(c.expert_width, c.bands, 3, padding=1)
        if c.base == "bicubic":
            # From a noisy start, training first shrinks all of the head's factors towards zero, where
            # their product has no gradient, and rests there for hundreds of steps. Start near the base.
            for p in self._drawing.parameters():
                p.data *= 0.01

    @property
    def _drawing(self) -> nn.Module:
        """What gives the image."""
        if not isinstance(self.last, nn.Identity):
            return self.last
        part: nn.Module | None = self.routed if self.one is None else self.one.conv
        part = part.expert if isinstance(part, GatedTwin) else part
        part = part.bank if isinstance(part, MoE) else part
        assert part is not None
        return part[-1] if isinstance(part, nn.Sequential) else part

    def forward(self, features: Tensor, signals: Tensor | None, trace: RoutingTrace | None) -> Tensor:
        """Features ``[B, C, H, W]`` and signals ``[B, R, H, W]`` to ``[B, bands, s*H, s*W]``."""
        x = F.leaky_relu(self.narrow(features))
        out: Tensor = self.last(F.pixel_shuffle(self._wide(x, signals, trace), self.scale))
        return out

    def _wide(self, x: Tensor, signals: Tensor | None, trace: RoutingTrace | None) -> Tensor:
        if self.one is not None:
            return self.one(x, signals, trace)  # type: ignore[no-any-return]
        if isinstance(self.routed, SpatialTwin):
            return self.routed(x)  # type: ignore[no-any-return]
        assert self.routed is not None
        assert signals is not None
        return route_pixels(self.routed, x, signals, trace=trace)


def _routed(c: MfgHmoeConfig) -> MoE | GatedTwin | EvenExperts | SpatialTwin:
    """The mixture, or its twin."""
    dense = c.twin in ("active", "parameters")
    with torch.device("meta") if dense else nullcontext():
        router = _router(c)  # drawn before its experts: one seed gives the weights that it always gave
        banks = [
            ConvExperts(c.width, c.outputs, *of) for of in zip(c.kernel_sizes, c.group_sizes, strict=True)
        ]
        mixture = MoE(router, HeterogeneousBank(banks))
        beside = sum(p.numel() for p in _aggregation(c).parameters()) if dense else 0

    def twin() -> SpatialTwin:
        return SpatialTwin(mixture, c.twin, c.width, c.outputs, beside)

    return twin() if dense else twin_of(mixture, c.twin, twin)


def _aggregation(c: MfgHmoeConfig) -> MultiLevelAggregation | ReleasedAggregation:
    kind = ReleasedAggregation if c.aggregation == "released" else MultiLevelAggregation
    return kind(c.embed_dim, c.router_width, c.seen)


def _convolution_trunk(c: MfgHmoeConfig) -> ConvolutionTrunk:
    block: Callable[[], nn.Module]
    if c.trunk == "residual":
        block = partial(ResidualBlock, c.embed_dim)
    else:
        block = partial(ConvolutionBlock, c.embed_dim, c.mlp_ratio)
    return ConvolutionTrunk(c.bands, c.embed_dim, c.depths, block)


class MfgHmoe(nn.Module):
    """Super-resolution with heterogeneous experts chosen for every pixel by two routers.

    Example:
        >>> import torch
        >>> from geomoe.models.super_resolution.mfg_hmoe import MfgHmoe, MfgHmoeConfig
        >>> model = MfgHmoe(MfgHmoeConfig(scale=2, embed_dim=12, depths=(2,), heads=2, window=4, squeeze=4))
        >>> model(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: MfgHmoeConfig) -> None:
        super().__init__()
        c = self.config = config
        self.mean = BandMean(c.bands, c.mean)
        self.trunk: nn.Module
        self.multiple = c.window if c.trunk == "hybrid" else 1
        released = c.aggregation == "released"
        self.trunk = hybrid_trunk(c, released) if c.trunk == "hybrid" else _convolution_trunk(c)
        self.aggregate = _aggregation(c) if c.routes else None
        self.informed = Informed(c.router_width) if c.informed else None
        self.upsample = RoutedUpsampler(c)

    @property
    def contract(self) -> ModelContract:
        c = self.config
        if c.trunk == "hybrid":
            tiling = Tiling(c.window, c.tile, 2 * c.window)
            return ModelContract.of_images(c.scale, c.bands, tiling, c.informed)
        # The trunk, one convolution before the experts, theirs, and perhaps one after. What routers see comes
        # through two convolutions, as far as through an expert of 3x3.
        blocks = sum(c.depths) * (2 if c.trunk == "residual" else 1)
        kernel = {"routed": max(3, *c.kernel_sizes), "mlp": 1}.get(c.head, 3)
        reach = blocks + 2 + 1 + kernel // 2 + (c.draws == "features")
        tiling = Tiling(1, c.tile, min(reach, 32), reach)
        return ModelContract.of_images(c.scale, c.bands, tiling, c.informed)

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, known: Tensor | None = None) -> Tensor:
        """Super-resolve (equation 1).

        Args:
            x: ``[B, bands, H, W]`` in about [0, 1]; H and W at least 1.
            trace: if given, the routing plan is appended to it; its grid is ``(B, H, W)``.
            known: ``[B, Known.WIDTH]``, of an ``informed`` model; others do not look at it.

        Returns:
            ``[B, bands, scale * H, scale * W]`` in the units of ``x``, not clipped.
        """
        c = self.config
        deep, levels = self.trunk(self.mean.subtract(pad_to_windows(x, self.multiple, c.border)))
        signals = self._signals(levels)
        if c.border == "features":  # the padding has done its work: only true pixels are routed and upsampled
            deep = crop_to(deep, x)
            signals = None if signals is None else crop_to(signals, x)
        if self.informed is not None and signals is not None:
            signals = self.informed(signals, known)
        out = crop_to(self.upsample(deep, signals, trace), x, c.scale)
        if c.base == "bicubic":
            return out + F.interpolate(x, scale_factor=c.scale, mode="bicubic")
        return self.mean.add(out)

    def _signals(self, levels: list[Tensor]) -> Tensor | None:
        """What the routers see, ``[B, R, H, W]``, of the results of the trunk's groups."""
        if self.aggregate is None:
            return None
        seen = levels[-self.config.seen :]
        if isinstance(self.aggregate, ReleasedAggregation):
            signals: Tensor = self.aggregate(seen, self.trunk.norm_out)
        else:
            signals = self.aggregate(seen)
        return signals.permute(0, 3, 1, 2)


register("mfg_hmoe", MfgHmoe, MfgHmoeConfig)
register(
    "mfg_hmoe_released",
    MfgHmoe,
    MfgHmoeConfig,
    {"aggregation": "released", "routing": "hard", "mean": (0.0,)},
)
register(
    "mfg_hmoe_light",
    MfgHmoe,
    MfgHmoeConfig,
    {
        "embed_dim": 64,
        "depths": (2, 2, 2),
        "heads": 2,
        "window": 8,
        "compress": 1,
        "squeeze": 16,
        "conv_scale": 1.0,
        "channel_pool": "window",
        "drop_path": 0.0,
        "experts_per_group": 4,
        "width": 32,
        "expert_width": 8,
        "router_width": 32,
        "base": "bicubic",
    },
)
