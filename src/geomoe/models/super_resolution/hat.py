"""HAT: Hybrid Attention Transformer.

Chen et al., "Activating More Pixels in Image Super-Resolution Transformer", CVPR 2023. Residual hybrid
attention groups: blocks of window attention with a branch of convolutions and channel attention beside it,
closed by overlapping cross-attention (figure 2, equations 2 to 5). ``hat_light`` is ours: the trunk of
``mfg_hmoe_light`` with a head of one convolution, the network that the routed head is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import BandMean, ShuffleHead, conv3x3
from geomoe.layers.hybrid import (
    ChannelAttentionBlock,
    ChannelPool,
    HybridConfig,
    HybridTrunk,
    OverlappingAttentionBlock,
    mlp,
)
from geomoe.layers.windows import crop_to, pad_to_windows
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.options import AttentionConfig
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["Hat", "HatConfig", "HybridOptions", "hybrid_trunk"]


@dataclass(frozen=True)
class HybridOptions(AttentionConfig):
    """Options of HAT's trunk, which other networks have too.

    Attributes:
        compress, squeeze: how far CAB narrows its convolutions and its channel attention.
        conv_scale: weight of the CAB branch.
        channel_pool: what channel attention averages over, ``image`` (the paper's) or ``window``.
        overlap: how much larger the key windows of the OCAB are.
    """

    compress: int = 3
    squeeze: int = 30
    conv_scale: float = 0.01
    channel_pool: ChannelPool = "image"
    overlap: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compress > self.embed_dim:
            raise ValueError(f"compress={self.compress}: expected at most embed_dim={self.embed_dim}")
        if self.overlap < 0:
            raise ValueError(f"overlap={self.overlap}: expected 0 or more")


def hybrid_trunk(c: HybridOptions, level_norms: bool = False) -> HybridTrunk:
    """HAT's trunk: CAB beside attention in each block, an OCAB at the end of each group, perhaps a norm."""
    branch = partial(
        ChannelAttentionBlock, c.embed_dim, c.compress, c.squeeze, c.window, c.channel_pool, c.conv_scale
    )
    overlapping = partial(OverlappingAttentionBlock, c.embed_dim, c.heads, c.window, c.overlap, c.mlp_ratio)
    feed_forward = partial(mlp, c.embed_dim, c.mlp_ratio)
    shared = HybridConfig(
        c.embed_dim, c.heads, c.window, feed_forward, branch, [overlapping], level_norms=level_norms
    )
    return HybridTrunk(c.bands, shared, c.depths, c.drop_path)


@dataclass(frozen=True)
class HatConfig(HybridOptions):
    """Everything that makes a :class:`Hat`. The defaults are the paper's HAT.

    Attributes:
        width: channels of the upsampler.
        base: what the network's result is added to: the ``mean`` that was subtracted (the paper's), or the
            input upsampled by ``bicubic`` interpolation; then one convolution upsamples at once.
    """

    width: int = 64
    base: Literal["mean", "bicubic"] = "mean"


class Hat(nn.Module):
    """Super-resolution by hybrid attention.

    Example:
        >>> import torch
        >>> from geomoe.models.super_resolution.hat import Hat, HatConfig
        >>> model = Hat(HatConfig(scale=2, embed_dim=12, depths=(2,), heads=2, window=4, squeeze=4))
        >>> model(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: HatConfig) -> None:
        super().__init__()
        c = self.config = config
        self.mean = BandMean(c.bands, c.mean)
        self.trunk = hybrid_trunk(c)
        self.head: nn.Module
        if c.base == "mean":
            self.head = ShuffleHead(c.embed_dim, c.width, c.scale, c.bands)
        else:
            last = conv3x3(c.embed_dim, c.bands * c.scale**2)
            last.weight.data *= 0.01  # starts near the base
            last.bias.data *= 0.01  # type: ignore[union-attr]
            self.head = nn.Sequential(last, nn.PixelShuffle(c.scale))

    @property
    def contract(self) -> ModelContract:
        c = self.config
        return ModelContract.of_images(c.scale, c.bands, Tiling(c.window, c.tile, 2 * c.window))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        c = self.config
        features, _ = self.trunk(self.mean.subtract(pad_to_windows(x, c.window, c.border)))
        if c.border == "features":
            features = crop_to(features, x)
        out = crop_to(self.head(features), x, c.scale)
        if c.base == "bicubic":
            return out + F.interpolate(x, scale_factor=c.scale, mode="bicubic")
        return self.mean.add(out)


register("hat", Hat, HatConfig)
register("hat_s", Hat, HatConfig, {"embed_dim": 144, "compress": 24, "squeeze": 24})
register("hat_l", Hat, HatConfig, {"depths": (6,) * 12})
register(
    "hat_light",
    Hat,
    HatConfig,
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
        "base": "bicubic",
    },
)
