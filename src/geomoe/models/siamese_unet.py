"""A siamese U-Net, which says what changed between two dates; no experts.

After the siamese networks of Daudt, Le Saux and Boulch, "Fully Convolutional Siamese Networks for Change
Detection", ICIP 2018, with the blocks of :mod:`geomoe.models.unet`. The way down sees each date by itself, by
the same weights; the way up sees both, side by side (``concatenation``) or by what differs between them
(``difference``), at every size of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.layers.norms import ChannelNorm
from geomoe.layers.windows import crop_to
from geomoe.models.contract import ModelContract
from geomoe.models.registry import register
from geomoe.models.siamese import Date, PairConfig, Siamese
from geomoe.models.unet import Stage, UNetConfig, Up
from geomoe.moe.plan import RoutingTrace

__all__ = ["SiameseUNet", "SiameseUNetConfig"]


@dataclass(frozen=True)
class SiameseUNetConfig(PairConfig):
    """Everything that makes a :class:`SiameseUNet`.

    Attributes:
        width: channels at the size of the image; twice as many each time the grid is halved.
        depth: how many times it is.
        blocks: at each size, down and up.
        ratio: width inside a block over that of the block.
        fusion: what the way up sees of the two dates.
    """

    width: int = 16
    depth: int = 4
    blocks: int = 1
    ratio: int = 2
    fusion: Literal["concatenation", "difference"] = "concatenation"

    @property
    def unet(self) -> UNetConfig:
        """The U-Net of one date."""
        return UNetConfig(
            self.channels, width=self.width, depth=self.depth, blocks=self.blocks, ratio=self.ratio
        )


class SiameseUNet(Siamese):
    """Says of every pixel whether it changed between two dates.

    Example:
        >>> import torch
        >>> from geomoe.models.siamese_unet import SiameseUNet, SiameseUNetConfig
        >>> config = SiameseUNetConfig(bands=4, sensors={"before": 1, "after": 3}, width=4, depth=2)
        >>> SiameseUNet(config)(torch.rand(1, 4, 9, 7)).shape
        torch.Size([1, 2, 9, 7])
    """

    def __init__(self, config: SiameseUNetConfig) -> None:
        super().__init__(config, 2**config.depth)
        c, one = config, config.unet
        self.config = config
        widths = [c.width * 2**level for level in range(c.depth + 1)]
        enter = [conv3x3(c.channels, c.width), *(nn.Conv2d(w // 2, w, 2, 2) for w in widths[1:])]
        self.encoder = nn.ModuleList(
            Stage(one, width, False, first) for width, first in zip(widths, enter, strict=True)
        )
        self.joins = nn.ModuleList(
            nn.Conv2d(2 * width if c.fusion == "concatenation" else width, width, 1) for width in widths
        )
        self.decoder = nn.ModuleList(Stage(one, width, False, Up(width)) for width in reversed(widths[:-1]))
        self.norm = ChannelNorm(c.width)
        self.head = nn.Conv2d(c.width, len(c.classes), 1)

    @property
    def contract(self) -> ModelContract:
        return self._contract(self.config.unet.reach, 256)

    def features(self, date: Date) -> list[Tensor]:
        """Of one date, at each size of the grid."""
        y, found = date.image, []
        for stage in self.encoder:
            y = stage(y, None, None)
            found.append(y)
        return found

    def forward(
        self,
        x: Tensor,
        trace: RoutingTrace | None = None,
        valid: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Logits ``[B, classes, H, W]``.

        Args:
            x: ``[B, bands, H, W]``, both dates stacked, of any size.
            trace: nothing is appended.
            valid: ``[B, H, W]`` bool, the pixels that there are; others are seen as the mean of their band.
            present: ``[B, 2, H, W]`` bool, the pixels that each date has; likewise.
        """
        first, second = (self.features(date) for date in self.dates(x, valid, present))
        *beside, y = [
            join(torch.cat([a, b], 1) if self.config.fusion == "concatenation" else (a - b).abs())
            for join, a, b in zip(self.joins, first, second, strict=True)
        ]
        for stage, skip in zip(self.decoder, reversed(beside), strict=True):
            y = stage(y, None, None, skip)
        return crop_to(self.head(self.norm(y)), x)


register("siamese_unet", SiameseUNet, SiameseUNetConfig, gives="classes")
