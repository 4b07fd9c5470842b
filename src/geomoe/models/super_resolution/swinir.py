"""SwinIR: Image Restoration Using Swin Transformer.

Liang et al., ICCV Workshops 2021. Residual Swin transformer blocks, each a row of window attention and a
convolution (figure 2, equations 1 to 6). ``swinir_light`` is the paper's light network, whose head is
one convolution and a pixel shuffle; ``swinir_real`` and ``swinir_real_l`` are those for real photographs,
whose head repeats pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from geomoe.layers.convolution import BandMean, NearestHead, ShuffleHead, bottleneck3x3, conv3x3
from geomoe.layers.hybrid import HybridConfig, HybridTrunk, mlp
from geomoe.layers.windows import crop_to, pad_to_windows
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.options import AttentionConfig
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["SwinIr", "SwinIrConfig"]


@dataclass(frozen=True)
class SwinIrConfig(AttentionConfig):
    """Everything that makes a :class:`SwinIr`. The defaults are the paper's classical network.

    Attributes:
        head: ``classical``; ``direct``: one convolution and a pixel shuffle; or ``nearest``: pixels repeated.
        width: channels of the upsampler, but of the direct one.
        closing: what ends each group and the trunk: one convolution, or three that are narrow between.
    """

    window: int = 8
    head: Literal["classical", "direct", "nearest"] = "classical"
    width: int = 64
    closing: Literal["1conv", "3conv"] = "1conv"


class SwinIr(nn.Module):
    """Super-resolution by shifted-window attention.

    Example:
        >>> import torch
        >>> from geomoe.models.super_resolution.swinir import SwinIr, SwinIrConfig
        >>> model = SwinIr(SwinIrConfig(scale=2, embed_dim=12, depths=(2,), heads=2, window=4))
        >>> model(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: SwinIrConfig) -> None:
        super().__init__()
        c = self.config = config
        self.mean = BandMean(c.bands, c.mean)
        feed_forward = partial(mlp, c.embed_dim, c.mlp_ratio)
        closing = conv3x3 if c.closing == "1conv" else bottleneck3x3
        shared = HybridConfig(c.embed_dim, c.heads, c.window, feed_forward, convolution=closing)
        self.trunk = HybridTrunk(c.bands, shared, c.depths, c.drop_path)
        self.head: nn.Module
        if c.head != "direct":
            head = ShuffleHead if c.head == "classical" else NearestHead
            self.head = head(c.embed_dim, c.width, c.scale, c.bands)
        else:
            self.head = nn.Sequential(conv3x3(c.embed_dim, c.bands * c.scale**2), nn.PixelShuffle(c.scale))

    @property
    def contract(self) -> ModelContract:
        c = self.config
        # From block to block windows are moved by half their side: what a pixel sees grows by at most a
        # window each way with every block. Convolutions see one pixel more each.
        closing = 1 if c.closing == "1conv" else 2
        reach = sum(c.depths) * c.window + closing * (len(c.depths) + 1) + 3
        margin = min(-(-reach // c.window), 4) * c.window
        return ModelContract.of_images(c.scale, c.bands, Tiling(c.window, c.tile, margin, reach))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        c = self.config
        features, _ = self.trunk(self.mean.subtract(pad_to_windows(x, c.window, c.border)))
        if c.border == "features":
            features = crop_to(features, x)
        out = crop_to(self.head(features), x, c.scale)
        return self.mean.add(out)


register("swinir", SwinIr, SwinIrConfig)
register(
    "swinir_light",
    SwinIr,
    SwinIrConfig,
    {"embed_dim": 60, "depths": (6, 6, 6, 6), "head": "direct"},
)
register("swinir_real", SwinIr, SwinIrConfig, {"head": "nearest"})
register(
    "swinir_real_l",
    SwinIr,
    SwinIrConfig,
    {"embed_dim": 240, "depths": (6,) * 9, "heads": 8, "head": "nearest", "closing": "3conv"},
)
