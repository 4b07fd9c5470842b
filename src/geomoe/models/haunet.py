"""HAUNet: Hybrid Attention-Based U-Shaped Network.

Wang et al., "Hybrid Attention-Based U-Shaped Network for Remote Sensing Image Super-Resolution", IEEE TGRS
2023. Single-scale extraction modules (SEM) on three levels of a U, attention made with convolutions in each:
among channels on every level, and among all pixels too on the finest. A cross-scale interaction module
(CIM) stands in the place of the skip connections, and the input upsampled bilinearly is added at the end.

This is a reading of the paper's outline, not of the authors' program; their weights do not fit it. Where
the outline is silent: every level is equally wide; convolutions of stride 2 lead down, bilinear interpolation
and a sum up; a SEM is attention and a perceptron twice as wide, each after a layer norm and with a skip;
attention has one head, and unit queries and keys times a learned temperature; in the CIM the channels of a
level attend to those of the other two levels' sum. At x4 that makes 2,666,870 parameters, 4,944 more than the
authors' 2,661,926 (0.2 %), and 39.4 GMAC for 64x64 pixels where theirs has 39.0. Of ``haunet_s`` the abstract
says about 596 thousand: 48 channels and 4 blocks make 587,503.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.layers.transposed import (
    ChannelNorm,
    ConvolutionalProjection,
    TransposedAttention,
    transposed_attention,
)
from geomoe.layers.windows import pad_to_multiple
from geomoe.models.contract import ModelContract
from geomoe.models.options import SuperResolutionConfig
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["HauNet", "HauNetConfig"]

_LEVELS = 3
_COARSEST = 2 ** (_LEVELS - 1)


@dataclass(frozen=True)
class HauNetConfig(SuperResolutionConfig):
    """Everything that makes a :class:`HauNet`. The defaults are the paper's HAUNet.

    Attributes:
        width: channels on every level.
        blocks: SEMs on a level, on the way down and again on the way up.
    """

    width: int = 96
    blocks: int = 5


class SpatialAttention(nn.Module):
    """Every pixel attends to every other: time is quadratic in the pixels, memory is not.

    Queries and keys have length 1, so that a learned temperature alone sets how sharp attention is.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = ConvolutionalProjection(dim)
        self.temperature = nn.Parameter(torch.ones(()))
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.qkv(x).flatten(2).transpose(1, 2).contiguous()  # [B, N, 3 C]
        q, k, v = tokens.unsqueeze(1).chunk(3, -1)  # [B, 1, N, C]
        q, k = self.temperature * F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        # The fused kernels that never hold [N, N] want one type for all three.
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, scale=1.0)
        result: Tensor = self.proj(out.squeeze(1).transpose(1, 2).reshape(x.shape))
        return result


class SingleScaleExtraction(nn.Module):
    """SEM: ``x + attention(LN(x))`` for each kind of attention, then ``x + MLP(LN(x))``."""

    def __init__(self, dim: int, spatial: bool) -> None:
        super().__init__()
        steps: list[nn.Module] = [SpatialAttention(dim)] if spatial else []
        steps.append(TransposedAttention(dim))
        steps.append(nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), nn.GELU(), nn.Conv2d(2 * dim, dim, 1)))
        self.steps = nn.ModuleList(nn.Sequential(ChannelNorm(dim), step) for step in steps)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = x + step(x)
        return x


class CrossScaleInteraction(nn.Module):
    """One level's part of the CIM: its channels attend to those of the other levels; with a skip."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(dim, dim, 1)
        self.key_value = nn.Conv2d(dim, 2 * dim, 1)
        self.temperature = nn.Parameter(torch.ones(()))
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        k, v = self.key_value(others).chunk(2, 1)
        out: Tensor = x + self.proj(transposed_attention(self.query(x), k, v, self.temperature))
        return out


def _to_level(x: Tensor, source: int, target: int) -> Tensor:
    """Features of level ``source`` on the grid of level ``target``: means on the way down, bilinear up."""
    if source < target:
        return F.avg_pool2d(x, 2 ** (target - source))
    return F.interpolate(x, scale_factor=float(2 ** (source - target)), mode="bilinear")


class HauNet(nn.Module):
    """Super-resolution by a U of attention among channels and among pixels.

    Example:
        >>> import torch
        >>> from geomoe.models.haunet import HauNet, HauNetConfig
        >>> HauNet(HauNetConfig(scale=2, width=8, blocks=1))(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: HauNetConfig) -> None:
        super().__init__()
        c = self.config = config

        def level(i: int) -> nn.Module:
            return nn.Sequential(*(SingleScaleExtraction(c.width, spatial=i == 0) for _ in range(c.blocks)))

        self.shallow = conv3x3(c.bands, c.width)
        self.encoder = nn.ModuleList(level(i) for i in range(_LEVELS))
        self.down = nn.ModuleList(
            nn.Conv2d(c.width, c.width, 3, stride=2, padding=1) for _ in range(_LEVELS - 1)
        )
        self.interaction = nn.ModuleList(CrossScaleInteraction(c.width) for _ in range(_LEVELS))
        self.decoder = nn.ModuleList(level(i) for i in range(_LEVELS - 1))
        self.last = nn.Sequential(conv3x3(c.width, c.bands * c.scale**2), nn.PixelShuffle(c.scale))

    @property
    def contract(self) -> ModelContract:
        # Attention takes in the whole image: no margin makes a tile equal to the scene.
        return ModelContract(
            self.config.scale, self.config.bands, multiple=_COARSEST, tile=64, margin=16, reach=None
        )

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        base = F.interpolate(x, scale_factor=float(self.config.scale), mode="bilinear")
        y = self.shallow(pad_to_multiple(x, _COARSEST))
        levels = []
        for i, blocks in enumerate(self.encoder):
            y = blocks(y if i == 0 else self.down[i - 1](y))
            levels.append(y)
        y = self._skip(levels, _LEVELS - 1)
        for i in reversed(range(_LEVELS - 1)):
            y = self.decoder[i](_to_level(y, i + 1, i) + self._skip(levels, i))
        out: Tensor = self.last(y)
        return base + out[..., : base.shape[2], : base.shape[3]]

    def _skip(self, levels: list[Tensor], i: int) -> Tensor:
        others = sum(_to_level(level, j, i) for j, level in enumerate(levels) if j != i)
        skip: Tensor = self.interaction[i](levels[i], others)
        return skip


register("haunet", HauNet, HauNetConfig)
register("haunet_s", HauNet, HauNetConfig, {"width": 48, "blocks": 4})
