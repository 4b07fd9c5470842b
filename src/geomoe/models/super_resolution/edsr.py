"""EDSR: Enhanced Deep Residual Networks.

Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR Workshops 2017.
Residual blocks without batch normalisation (figure 2), and one skip over all of them (figure 3). The
network computes in a range of 255, and the large one damps its residuals by 0.1 (section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from geomoe.layers.convolution import BandMean, PixelShuffleUpsampler, ResidualBlock, conv3x3, scale_steps
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.options import CentredConfig
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["Edsr", "EdsrConfig"]


@dataclass(frozen=True)
class EdsrConfig(CentredConfig):
    """Everything that makes an :class:`Edsr`. The defaults are the paper's large network.

    Attributes:
        width: channels.
        blocks: residual blocks.
        residual_scale: factor on each block's residual.
    """

    width: int = 256
    blocks: int = 32
    residual_scale: float = 0.1


class Edsr(nn.Module):
    """Super-resolution by residual blocks of convolutions.

    Example:
        >>> import torch
        >>> from geomoe.models.super_resolution.edsr import Edsr, EdsrConfig
        >>> Edsr(EdsrConfig(scale=2, width=8, blocks=2))(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: EdsrConfig) -> None:
        super().__init__()
        c = self.config = config
        self.mean = BandMean(c.bands, c.mean, peak=255)
        self.shallow = conv3x3(c.bands, c.width)
        self.body = nn.Sequential(
            *(ResidualBlock(c.width, c.residual_scale) for _ in range(c.blocks)), conv3x3(c.width, c.width)
        )
        self.upsample = PixelShuffleUpsampler(c.width, c.scale)
        self.last = conv3x3(c.width, c.bands)

    @property
    def contract(self) -> ModelContract:
        c = self.config
        reach = 2 + 2 * c.blocks + len(scale_steps(c.scale)) + 1
        return ModelContract.of_images(c.scale, c.bands, Tiling(1, 128, min(reach, 32), reach))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        shallow = self.shallow(self.mean.subtract(x))
        out: Tensor = self.last(self.upsample(shallow + self.body(shallow)))
        return self.mean.add(out)


register("edsr_l", Edsr, EdsrConfig)
register("edsr", Edsr, EdsrConfig, {"width": 64, "blocks": 16, "residual_scale": 1.0})
