"""U-Net, which says of every pixel what it shows; with mixtures of convolutions in some of its blocks.

Ronneberger et al., MICCAI 2015, with other blocks: in place of two plain 3 x 3 convolutions a residual one of
a 3 x 3 and then a 1 x 1 convolution or a mixture, strided convolutions in place of pooling, padding, and a
norm over the channels of each pixel (as ConvNeXt, Liu et al. 2022), so that what is said of a pixel depends
on its surroundings alone: a tile is what the whole scene is there, and an image does not depend on its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.layers.windows import crop_to, pad_to_multiple
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.label import Normalise
from geomoe.models.options import MapConfig
from geomoe.models.registry import register
from geomoe.models.spatial_moe import SpatialConfig, SpatialMoE, mix_pixels
from geomoe.moe.plan import RoutingTrace

__all__ = ["UNet", "UNetConfig"]

_TILE = 256
"""Side of a tile's core, pixels, at the least."""


@dataclass(frozen=True)
class UNetConfig(SpatialConfig, MapConfig):
    """Everything that makes a :class:`UNet`.

    Attributes:
        width: channels at the size of the image; twice as many each time the grid is halved.
        depth: how many times it is.
        blocks: at each size, down and up.
        ratio: width inside a block over that of the block.
        experts_in: blocks whose second convolution is a mixture: none, those at the ``bottom``, those on the
            way up (``decoder``), or ``both``.
    """

    width: int = 32
    depth: int = 3
    blocks: int = 1
    ratio: int = 2
    experts_in: Literal["none", "bottom", "decoder", "both"] = "none"

    @property
    def reach(self) -> int:
        """Pixels of the image that one pixel of the result sees at most, where tiles start on whole cells."""
        plain, mixed = 1, 1 + self.spatial_reach
        up = mixed if self.experts_in in ("decoder", "both") else plain
        bottom = mixed if self.experts_in in ("bottom", "both") else plain
        cells: int = 2**self.depth
        # The sizes above the bottom are passed twice, and a cell of the bottom is seen whole from any side.
        return 1 + self.blocks * ((plain + up) * (cells - 1) + bottom * cells) + cells - 1


class Block(nn.Module):
    """``x + mix(gelu(conv3x3(LN(x))))`` on ``[B, C, H, W]``; ``mix`` a 1x1 convolution, or a mixture."""

    def __init__(self, c: UNetConfig, channels: int, sparse: bool) -> None:
        super().__init__()
        inside = channels * c.ratio
        self.norm = nn.LayerNorm(channels)
        self.conv = conv3x3(channels, inside)
        self.mix = mix_pixels(c, inside, channels) if sparse else nn.Conv2d(inside, channels, 1)

    def forward(self, x: Tensor, valid: Tensor | None, trace: RoutingTrace | None) -> Tensor:
        y = F.gelu(self.conv(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))
        mixed: Tensor = self.mix(y, valid, trace) if isinstance(self.mix, SpatialMoE) else self.mix(y)
        return x + mixed


class Stage(nn.Module):
    """Blocks of one size of grid, after what brings the features there.

    Args:
        c: of the network.
        channels: of the blocks.
        sparse: whether the blocks hold mixtures.
        enter: makes features of this size of what came before; of the way up, with those of the way down
            beside them.
    """

    def __init__(self, c: UNetConfig, channels: int, sparse: bool, enter: nn.Module) -> None:
        super().__init__()
        self.enter = enter
        self.blocks = nn.ModuleList(Block(c, channels, sparse) for _ in range(c.blocks))

    def forward(
        self, x: Tensor, valid: Tensor | None, trace: RoutingTrace | None, beside: Tensor | None = None
    ) -> Tensor:
        y: Tensor = self.enter(x) if beside is None else self.enter(x, beside)
        for block in self.blocks:
            y = block(y, valid, trace)
        return y


class Up(nn.Module):
    """Twice as large, half as wide, and joined with what the way down had there."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, 2)
        self.join = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        out: Tensor = self.join(torch.cat([self.up(x), beside], 1))
        return out


class UNet(nn.Module):
    """Says of every pixel what it shows.

    Example:
        >>> import torch
        >>> from geomoe.models.unet import UNet, UNetConfig
        >>> model = UNet(UNetConfig(classes=("field", "water"), width=4, depth=2, experts_in="bottom"))
        >>> model(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 2, 9, 7])
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        c = self.config = config
        widths = [c.width * 2**level for level in range(c.depth + 1)]
        self.normalise = Normalise(c)
        self.encoder = nn.ModuleList(
            Stage(
                c,
                width,
                sparse=level == c.depth and c.experts_in in ("bottom", "both"),
                enter=nn.Conv2d(widths[level - 1], width, 2, 2) if level else conv3x3(c.bands, width),
            )
            for level, width in enumerate(widths)
        )
        up = c.experts_in in ("decoder", "both")
        self.decoder = nn.ModuleList(Stage(c, width, up, Up(width)) for width in reversed(widths[:-1]))
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Conv2d(c.width, len(c.classes), 1)

    @property
    def contract(self) -> ModelContract:
        c = self.config
        cells = 2**c.depth
        tiling = Tiling(
            tile=-(-_TILE // cells) * cells,
            multiple=cells,
            margin=-(-c.reach // cells) * cells,
            reach=c.reach,
        )
        output = Output("classes", len(c.classes), classes=c.classes, colours=c.colours)
        return ModelContract({"image": Input(c.bands)}, {"classes": output}, tiling)

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            x: ``[B, bands, H, W]``, of any size; continued to whole cells of the bottom by mirroring.
            trace: if given, the plan of every mixture is appended to it; its rows are pixels, of the grid of
                their block. What fills up the image is not routed.
            valid: ``[B, H, W]`` bool, the pixels that there are: the others are seen as the mean of their
                band, and are routed only where a cell of their grid holds one that there is.

        Returns:
            ``[B, classes, H, W]``; of pixels that are not valid too, which mean nothing.
        """
        cells = 2**self.config.depth
        y = self.normalise(x)
        if valid is not None:
            y = y.masked_fill(~valid[:, None], 0)
        y, there = pad_to_multiple(y, cells), self._there(x, valid)
        passed = []
        for level, stage in enumerate(self.encoder):
            y = stage(y, there[level], trace)
            passed.append(y)
        for level, stage in zip(reversed(range(self.config.depth)), self.decoder, strict=True):
            y = stage(y, there[level], trace, passed[level])
        out: Tensor = self.head(self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return crop_to(out, x)

    def _there(self, x: Tensor, valid: Tensor | None) -> list[Tensor | None]:
        """Of the grid of each size which pixels there are, ``[B, H', W']``; None where that is all."""
        depth = self.config.depth
        missing = [-size % 2**depth for size in x.shape[2:]]
        if valid is None and not any(missing):
            return [None] * (depth + 1)
        whole = x.new_ones(x.shape[0], 1, *x.shape[2:]) if valid is None else valid[:, None].to(x.dtype)
        there = [F.pad(whole, (0, missing[1], 0, missing[0]))]
        for _ in range(depth):
            there.append(F.max_pool2d(there[-1], 2))
        return [level[:, 0] > 0 for level in there]


register(
    "unet",
    UNet,
    UNetConfig,
    gives="classes",
    what="U-Net, which says of every pixel what it shows; no experts",
)
register("unet_spatial_moe", UNet, UNetConfig, {"experts_in": "both"}, gives="classes")
