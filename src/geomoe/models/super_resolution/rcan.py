"""RCAN: Residual Channel Attention Networks.

Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention Networks", ECCV 2018.
Residual groups of residual channel attention blocks (RCAB), with a skip over each block, each group and
all of them (equations 4 to 12). 10 groups of 20 blocks, as the paper says; 16 blocks is another network.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from geomoe.layers.convolution import BandMean, ChannelGate, PixelShuffleUpsampler, conv3x3
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.options import CentredConfig
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["Rcan", "RcanConfig"]


@dataclass(frozen=True)
class RcanConfig(CentredConfig):
    """Everything that makes an :class:`Rcan`. The defaults are the paper's.

    Attributes:
        width: channels, a multiple of ``reduction``.
        groups: residual groups.
        blocks: RCABs in a group.
        reduction: how far channel attention narrows.
    """

    width: int = 64
    groups: int = 10
    blocks: int = 20
    reduction: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reduction > self.width:
            raise ValueError(f"reduction={self.reduction}: expected at most width={self.width}")


class ResidualChannelAttentionBlock(nn.Module):
    """RCAB: conv, ReLU, conv, each channel times its gate (equations 8 to 12)."""

    def __init__(self, c: RcanConfig) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(c.width, c.width), nn.ReLU(), conv3x3(c.width, c.width))
        self.gate = ChannelGate(c.width, c.width // c.reduction)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.body(x)
        return x.addcmul(residual, self.gate(residual.mean((2, 3)))[:, :, None, None])


class ResidualGroup(nn.Module):
    """RCABs, a convolution, a skip (equation 5)."""

    def __init__(self, c: RcanConfig) -> None:
        super().__init__()
        blocks = (ResidualChannelAttentionBlock(c) for _ in range(c.blocks))
        self.body = nn.Sequential(*blocks, conv3x3(c.width, c.width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class Rcan(nn.Module):
    """Super-resolution by residual groups with channel attention.

    Example:
        >>> import torch
        >>> from geomoe.models.super_resolution.rcan import Rcan, RcanConfig
        >>> model = Rcan(RcanConfig(scale=2, width=8, groups=1, blocks=2, reduction=4))
        >>> model(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: RcanConfig) -> None:
        super().__init__()
        c = self.config = config
        self.mean = BandMean(c.bands, c.mean, peak=255)
        self.shallow = conv3x3(c.bands, c.width)
        self.body = nn.Sequential(*(ResidualGroup(c) for _ in range(c.groups)), conv3x3(c.width, c.width))
        self.upsample = PixelShuffleUpsampler(c.width, c.scale)
        self.last = conv3x3(c.width, c.bands)

    @property
    def contract(self) -> ModelContract:
        # Channel attention takes the mean of the whole image: no margin makes a tile equal to the scene.
        return ModelContract.of_images(self.config.scale, self.config.bands, Tiling(1, 128, 32))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        shallow = self.shallow(self.mean.subtract(x))
        out: Tensor = self.last(self.upsample(shallow + self.body(shallow)))
        return self.mean.add(out)


register("rcan", Rcan, RcanConfig)
