"""HyperTransXNet: patches of a hyperspectral scene by filters that each patch makes for itself, and experts.

Dai, Li, Li, Xue, Huang, Yang, "HyperTransXNet: Learning Both Global and Local Dynamics with a Dual Dynamic
Token Mixer for Hyperspectral Image Classification", Remote Sensing 17(14) 2361, 2025. Four times a hybrid
block, then a convolution that halves the patch and doubles the channels. A block adds up a local view (a 3x3
filter for each channel, made from the patch's means) and a global one (a filter over the channels' spectrum,
then attention over the patch's pixels), and takes the sum through a mixture of depthwise convolutions, chosen
for the patch.

From the paper and the released program: all sizes. With three departures. The program weighs the one chosen
expert by its probability over itself, which is 1 whatever the router does, so that the router never learns
and one expert takes all; here the weight is the probability, or with two experts and more their shares. Its
transform over the channels is undone at once and does nothing; here there is a filter between, 1 at the start
(assumed). Its gate has a bias, which the core's linear gate does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.models.options import check_divides
from geomoe.models.patch_map import PatchConfig, PatchMap
from geomoe.models.registry import register
from geomoe.models.twin import Twin, twin_of
from geomoe.moe import LinearScore, ModuleExperts, MoE, Router, TopK
from geomoe.moe.plan import RoutingTrace

__all__ = ["ChannelFilter", "DynamicFilter", "HyperTransXNet", "HyperTransXNetConfig"]


@dataclass(frozen=True)
class HyperTransXNetConfig(PatchConfig):
    """Everything that makes a :class:`HyperTransXNet`. The defaults are the published size.

    Attributes:
        reduced: channels that each pixel's bands are brought to.
        width: of the first block.
        blocks: each twice as wide as the one before.
        heads: of the attention; divide ``width``.
        experts: of each block.
        top_k: for each patch.
        twin: what replaces the mixtures; see :data:`geomoe.models.twin.Twin`.
    """

    patch: int = 15
    reduced: int = 30
    width: int = 64
    blocks: int = 4
    heads: int = 8
    experts: int = 4
    top_k: int = 1
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "width", self.width)


class DynamicFilter(nn.Module):
    """A 3x3 filter for each channel of ``[N, C, H, W]``, made from the means of each sample."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.make = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.GELU(), nn.Conv2d(channels, 9 * channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        kernels = self.make(x.mean((2, 3), keepdim=True)).view(len(x), -1, 9, 1)  # [N, C, 9, 1]
        mirrored = x
        for dim, sides in ((3, (1, 1, 0, 0)), (2, (0, 0, 1, 1))):  # one pixel has no mirror image
            mirrored = F.pad(mirrored, sides, "reflect" if x.shape[dim] > 1 else "replicate")
        around = F.unfold(mirrored, 3).view(len(x), -1, 9, x.shape[2] * x.shape[3])
        out: Tensor = (kernels * around).sum(2).view_as(x)
        return out


class ChannelFilter(nn.Module):
    """A complex factor for each frequency along the channels of ``[N, L, C]``; 1 at the start.

    Carried out as what it is, a circular convolution: C is small, and every runtime knows a product.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        frequencies = channels // 2 + 1
        start = torch.zeros(frequencies, 2)
        start[:, 0] = 1
        self.factors = nn.Parameter(start)
        steps = torch.arange(channels, dtype=torch.float64)
        angles = 2 * math.pi / channels * torch.outer(steps, torch.arange(frequencies, dtype=torch.float64))
        twice = torch.full((frequencies,), 2.0, dtype=torch.float64)  # but for those without a mirror image
        twice[0] = 1
        if channels % 2 == 0:
            twice[-1] = 1
        for name, wave in (("cosines", angles.cos()), ("sines", angles.sin())):
            self.register_buffer(name, (wave * twice / channels).float(), persistent=False)
        self.register_buffer("lags", (steps[None] - steps[:, None]).long() % channels, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.cosines @ self.factors[:, 0] - self.sines @ self.factors[:, 1]
        return x @ kernel[self.lags].to(x.dtype)  # type: ignore[index]


class GlobalView(nn.Module):
    """Linear, a filter over the channels, LN, and attention over all pixels, on ``[N, C, H, W]``."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.linear, self.filter = nn.Linear(channels, channels), ChannelFilter(channels)
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.filter(self.linear(x.flatten(2).transpose(1, 2))))
        seen, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return seen.transpose(1, 2).view_as(x)  # type: ignore[no-any-return]


def _expert(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        nn.GELU(),
        nn.Conv2d(channels, channels, 1),
    )


class HybridBlock(nn.Module):
    """``x + MoE(gelu(BN(conv(local(x) + global(x)))))``; the plan has a row for each patch."""

    def __init__(self, c: HyperTransXNetConfig, channels: int) -> None:
        super().__init__()
        self.local, self.whole = DynamicFilter(channels), GlobalView(channels, c.heads)
        self.join = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.GELU())
        router = Router(
            LinearScore(channels, c.experts), TopK(c.top_k, "soft" if c.top_k == 1 else "normalised")
        )
        experts = [_expert(channels) for _ in range(c.experts)]
        self.moe = twin_of(MoE(router, ModuleExperts(experts)), c.twin)

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        y = self.join(self.local(x) + self.whole(x))
        out: Tensor = x + self.moe(y, y.mean((2, 3)), trace=trace)
        return out


class HyperTransXNet(PatchMap):
    """Says of every pixel what it shows, from the patch around it.

    Example:
        >>> import torch
        >>> from geomoe.models.hyper_trans_xnet import HyperTransXNet, HyperTransXNetConfig
        >>> config = HyperTransXNetConfig(bands=9, classes=("field", "water"), patch=5, width=8, blocks=1)
        >>> HyperTransXNet(config).eval()(torch.rand(1, 9, 6, 4)).shape
        torch.Size([1, 2, 6, 4])
    """

    def __init__(self, config: HyperTransXNetConfig) -> None:
        super().__init__(config)
        c = config
        self.reduce = nn.Sequential(nn.Conv2d(c.bands, c.reduced, 1), nn.BatchNorm2d(c.reduced), nn.GELU())
        self.enter = conv3x3(c.reduced, c.width)
        widths = [c.width * 2**i for i in range(c.blocks)]
        self.blocks = nn.ModuleList(HybridBlock(c, width) for width in widths)
        self.halve = nn.ModuleList(
            nn.Sequential(conv3x3(width, 2 * width, 2), nn.BatchNorm2d(2 * width), nn.GELU())
            for width in widths
        )
        self.head = nn.Linear(2 * widths[-1], len(c.classes))

    def embed(self, x: Tensor) -> Tensor:
        out: Tensor = self.reduce(x)
        return out

    def label(self, patches: Tensor, trace: RoutingTrace | None) -> Tensor:
        y = self.enter(patches)
        for block, halve in zip(self.blocks, self.halve, strict=True):
            y = halve(block(y, trace))
        out: Tensor = self.head(y.mean((2, 3)))
        return out


register("hyper_trans_xnet", HyperTransXNet, HyperTransXNetConfig, gives="classes")
