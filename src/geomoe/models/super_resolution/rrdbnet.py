"""RRDBNet: the generator of ESRGAN.

Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV Workshops 2018.
Residual-in-residual dense blocks (figure 4), each skip damped by 0.2, upsampling by nearest neighbours and
convolutions. The network is made for x4: at x2 its input is folded by a pixel unshuffle first, as the
authors' own later networks do. Where neither is said, x3 upsamples once by 3, x8 three times by 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3, scale_steps, upsample_nearest
from geomoe.layers.windows import pad_to_multiple
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.options import ScaleConfig
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["RrdbNet", "RrdbNetConfig"]

_DAMPING = 0.2
_SLOPE = 0.2


@dataclass(frozen=True)
class RrdbNetConfig(ScaleConfig):
    """Everything that makes an :class:`RrdbNet`. The defaults are the paper's.

    Attributes:
        width: channels.
        growth: channels that each convolution of a dense block adds.
        blocks: RRDBs, each of three dense blocks of five convolutions.
        unshuffle: at x2, whether the input is folded first (Real-ESRGAN) or enlarged once (BSRGAN).
    """

    width: int = 64
    growth: int = 32
    blocks: int = 23
    unshuffle: bool = True

    @property
    def fold(self) -> int:
        """Side of the squares of pixels that are folded into channels before the network."""
        return 2 if self.scale == 2 and self.unshuffle else 1


class DenseBlock(nn.Module):
    """Five convolutions, each seeing the results of all before it; the last one is the residual."""

    def __init__(self, c: RrdbNetConfig) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(c.width + i * c.growth, c.growth) for i in range(4))
        self.last = conv3x3(c.width + 4 * c.growth, c.width)
        for conv in [*self.convs, self.last]:  # "smaller initialization", section 3.1
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data *= 0.1
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in self.convs:
            seen = torch.cat((seen, F.leaky_relu(conv(seen), _SLOPE)), 1)
        return torch.add(x, self.last(seen), alpha=_DAMPING)


class ResidualInResidualDenseBlock(nn.Module):
    """RRDB: three dense blocks and a damped skip over them."""

    def __init__(self, c: RrdbNetConfig) -> None:
        super().__init__()
        self.body = nn.Sequential(DenseBlock(c), DenseBlock(c), DenseBlock(c))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.body(x), alpha=_DAMPING)


class RrdbNet(nn.Module):
    """Super-resolution by residual-in-residual dense blocks.

    Example:
        >>> import torch
        >>> from geomoe.models.super_resolution.rrdbnet import RrdbNet, RrdbNetConfig
        >>> RrdbNet(RrdbNetConfig(scale=2, width=8, growth=4, blocks=1))(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: RrdbNetConfig) -> None:
        super().__init__()
        c = self.config = config
        self.steps = scale_steps(c.scale * c.fold)
        self.shallow = conv3x3(c.bands * c.fold**2, c.width)
        self.body = nn.Sequential(
            *(ResidualInResidualDenseBlock(c) for _ in range(c.blocks)), conv3x3(c.width, c.width)
        )
        self.ups = nn.ModuleList(conv3x3(c.width, c.width) for _ in self.steps)
        self.high = conv3x3(c.width, c.width)
        self.last = conv3x3(c.width, c.bands)

    @property
    def contract(self) -> ModelContract:
        c = self.config
        reach = c.fold * (2 + 15 * c.blocks + len(self.steps) + 2)
        return ModelContract.of_images(c.scale, c.bands, Tiling(c.fold, 128, min(reach, 32), reach))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        c = self.config
        height, width = c.scale * x.shape[2], c.scale * x.shape[3]
        shallow = self.shallow(F.pixel_unshuffle(pad_to_multiple(x, c.fold), c.fold))
        y = upsample_nearest(shallow + self.body(shallow), self.steps, self.ups)
        out: Tensor = self.last(F.leaky_relu(self.high(y), _SLOPE))
        return out[..., :height, :width]


register("rrdbnet", RrdbNet, RrdbNetConfig)
