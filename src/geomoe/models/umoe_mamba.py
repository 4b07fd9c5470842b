"""U-MoE Mamba: a U-Net whose skips are joined by convolutions, attention and state spaces, weighed by a gate.

Li, Ding, Peng, Cai, "U-MoEMamba: A Hybrid Expert Segmentation Model for Cabbage Heads in Complex UAV
Low-Altitude Remote Sensing Scenarios", Agriculture 15(16) 1723, 2025; no program of it was found. From the
paper: on the way up shallow and deep features are fused by three experts, convolutions of several sizes, an
attention across both (spatial and channel paths), and a visual state space, each sample by weights that
fully connected layers give of pooled features.

Assumed: all sizes; residual convolutions on the way down and up; what stands inside the experts and the gate,
see there; a gate that is even at first; the sum of the experts on top of the shallow features. Where grids
are finer than ``scan``, the state space sees means of squares. Configurations let the rate of learning fall
as a cosine, and flip images; saturation and salt and pepper are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.conv_trunk import ConvolutionBlock
from geomoe.layers.convolution import ChannelGate
from geomoe.layers.gates import SpatialAttention
from geomoe.layers.norms import ChannelNorm
from geomoe.layers.scales import Encoder
from geomoe.layers.selective_scan import SelectiveScan
from geomoe.layers.windows import crop_to, pad_to_multiple
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.label import Normalise
from geomoe.models.options import MapConfig
from geomoe.models.registry import register
from geomoe.models.twin import Twin, twin_of
from geomoe.moe import AllExperts, Direction, ModuleExperts, MoE, Router, Samples
from geomoe.moe.layers.scan import InDirection
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.routing.score import Gate, Score

__all__ = [
    "CrossAttention",
    "CrossScan",
    "Fusion",
    "StateSpace",
    "UMoEMamba",
    "UMoEMambaConfig",
    "VariedSizes",
]

_TILE = 256
"""Side of a tile's core, pixels, at the least."""


@dataclass(frozen=True)
class UMoEMambaConfig(MapConfig):
    """Everything that makes a :class:`UMoEMamba`.

    Attributes:
        widths: channels of each size, the grid halved from one to the next; two or more.
        blocks: of each size, down and up.
        state: numbers of a state.
        scan: pixels to a side of the cells that state spaces see at the least.
        twin: ``active``, the mean of the experts in the place of their mixture, or a gate that keeps its
            random start (``frozen``).
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    blocks: int = 1
    state: int = 16
    scan: int = 1
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.widths) < 2:
            raise ValueError(f"widths={self.widths!r}: expected two or more")
        if self.twin in ("gated", "parameters"):
            raise ValueError(
                f"twin={self.twin!r}: every expert is run, by weights with sum 1; choose active or frozen"
            )

    @property
    def cells(self) -> int:
        """Pixels to a side of a cell of the coarsest grid."""
        return int(2 ** (len(self.widths) - 1))


class VariedSizes(nn.Module):
    """Shallow and deep features, added, by depthwise convolutions of 3, 5 and 7, added, then pointwise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = nn.ModuleList(
            nn.Conv2d(width, width, side, padding=side // 2, groups=width) for side in (3, 5, 7)
        )
        self.join = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 2 C, H, W]``, shallow and deep, to ``[B, C, H, W]``; as the other experts."""
        both = torch.stack(x.chunk(2, 1)).sum(0)
        out: Tensor = self.join(F.gelu(torch.stack([conv(both) for conv in self.sizes]).sum(0)))
        return out


class CrossAttention(nn.Module):
    """The deep features say which channels of the shallow ones count, these which places of the deep ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channel, self.spatial = ChannelGate(width, max(width // 4, 4)), SpatialAttention()
        self.join = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        shallow, deep = x.chunk(2, 1)
        channels = self.channel(deep.mean((2, 3)))[..., None, None]
        out: Tensor = self.join(torch.cat([shallow * channels, deep * self.spatial(shallow)], 1))
        return out


class CrossScan(nn.Module):
    """``[B, C, H, W]`` by four state spaces, each in a direction of its own, their results added in place."""

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        rank = -(-width // 16)
        self.ways = nn.ModuleList(
            InDirection(SelectiveScan(width, state, rank), direction) for direction in get_args(Direction)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([way(x) for way in self.ways]).sum(0)


class StateSpace(nn.Module):
    """Shallow and deep features, added: ``leave(LN(scan(silu(conv(value)))) silu(gate))`` (VMamba, Liu 2024).

    Args:
        width: channels.
        state: numbers of a state.
        pool: side of the squares whose means are scanned.
    """

    def __init__(self, width: int, state: int, pool: int = 1) -> None:
        super().__init__()
        self.pool, self.first = pool, ChannelNorm(width)
        self.enter, self.leave = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.scan, self.norm = CrossScan(width, state), ChannelNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack(x.chunk(2, 1)).sum(0)
        y = F.avg_pool2d(both, self.pool, ceil_mode=True) if self.pool > 1 else both
        value, gate = self.enter(self.first(y)).chunk(2, 1)
        scanned = self.norm(self.scan(F.silu(self.conv(value))))
        out: Tensor = self.leave(scanned * F.silu(gate))
        if self.pool == 1:
            return out
        size = [side * self.pool for side in out.shape[2:]]
        return crop_to(F.interpolate(out, size, mode="bilinear"), both)


class PooledScore(Score):
    """Logits ``[B, E]`` of means ``[B, C]``, by two layers; all alike at first."""

    def __init__(self, channels: int, hidden: int, num_experts: int) -> None:
        super().__init__((num_experts,))
        self.inside, self.gate = Gate(channels, hidden), Gate(hidden, num_experts)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        out: Tensor = self.gate(F.relu(self.inside(rows)))
        return out


class Fusion(nn.Module):
    """Shallow features, and what three experts make of these and deep ones, weighed for each sample.

    Args:
        c: of the network.
        level: place in ``widths``.
    """

    def __init__(self, c: UMoEMambaConfig, level: int) -> None:
        super().__init__()
        width = c.widths[level]
        experts = [
            VariedSizes(width),
            CrossAttention(width),
            StateSpace(width, c.state, max(c.scan // 2**level, 1)),
        ]
        score = PooledScore(2 * width, max(width // 4, 4), len(experts))
        if c.twin == "frozen":
            nn.init.normal_(score.gate.weight)
        self.moe = twin_of(MoE(Router(score, AllExperts()), ModuleExperts(experts)), c.twin)

    def forward(self, shallow: Tensor, deep: Tensor, trace: RoutingTrace | None) -> Tensor:
        """Both ``[B, C, H, W]``, as the result."""
        both = torch.cat([shallow, deep], 1)
        mixed: Tensor = self.moe(both, both.mean((2, 3)), grid=Samples.of(both).grid, trace=trace)
        return shallow + mixed


class Up(nn.Module):
    """Deep features, twice as large and half as wide, fused with shallow ones; then blocks."""

    def __init__(self, c: UMoEMambaConfig, level: int) -> None:
        super().__init__()
        width = c.widths[level]
        self.up = nn.ConvTranspose2d(c.widths[level + 1], width, 2, 2)
        self.fusion = Fusion(c, level)
        self.blocks = nn.Sequential(
            *(ConvolutionBlock(width, 2.0) for _ in range(c.blocks)), ChannelNorm(width)
        )

    def forward(self, x: Tensor, shallow: Tensor, trace: RoutingTrace | None) -> Tensor:
        out: Tensor = self.blocks(self.fusion(shallow, self.up(x), trace))
        return out


class UMoEMamba(nn.Module):
    """Says of every pixel what it shows; every pixel sees the whole image.

    Example:
        >>> import torch
        >>> from geomoe.models.umoe_mamba import UMoEMamba, UMoEMambaConfig
        >>> UMoEMamba(UMoEMambaConfig(classes=("soil", "head"), widths=(8, 8)))(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 2, 9, 7])
    """

    def __init__(self, config: UMoEMambaConfig) -> None:
        super().__init__()
        c = self.config = config
        self.normalise = Normalise(c)
        self.encoder = Encoder(c.bands, c.widths, c.blocks)
        self.decoder = nn.ModuleList(Up(c, level) for level in reversed(range(len(c.widths) - 1)))
        self.head = nn.Conv2d(c.widths[0], len(c.classes), 1)

    @property
    def contract(self) -> ModelContract:
        c = self.config
        grid = max(c.cells, c.scan)
        tiling = Tiling(multiple=grid, tile=-(-_TILE // grid) * grid, margin=4 * grid, reach=None)
        output = Output("classes", len(c.classes), classes=c.classes, colours=c.colours)
        return ModelContract({"image": Input(c.bands)}, {"classes": output}, tiling)

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """Logits ``[B, classes, H, W]``.

        Args:
            x: ``[B, bands, H, W]``, of any size; continued to whole cells of the coarsest grid by mirroring.
            trace: if given, the plan of every fusion is appended to it, the coarsest first; a row is an
                image.
            valid: ``[B, H, W]`` bool, the pixels that there are; the others are seen as the mean of their
                band.
        """
        y = self.normalise(x)
        y = y if valid is None else y.masked_fill(~valid[:, None], 0)
        y, *finer = reversed(self.encoder(pad_to_multiple(y, self.config.cells)))
        for up, shallow in zip(self.decoder, finer, strict=True):
            y = up(y, shallow, trace)
        return crop_to(self.head(y), x)


register("umoe_mamba", UMoEMamba, UMoEMambaConfig, gives="classes")
