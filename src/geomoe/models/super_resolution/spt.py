"""SPT: Scale-Aware Backprojection Transformer.

Hao et al., "Scale-Aware Backprojection Transformer for Single Remote Sensing Image Super-Resolution", IEEE
TGRS 2024; its preprint is "Multi-granularity Backprojection Transformer", arXiv 2310.12507. Attention whose
keys and values are pooled at several scales, one half of the channels by it and the other by HAT's channel
attention block (CAB), and a last step that makes the result small again and corrects it by what does not
agree with the input.

The same function as the authors' program, which treats the mean oddly: it is subtracted before the network
alone, yet added to a result whose base is the input as it came. Their program also lays out the pixels of an
image that is not square by the wrong number of columns before it pools them; ``pooling="transposed"`` does so
too. For squares, which it is trained on, both are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import BandMean, ShuffleHead, conv3x3
from geomoe.layers.hybrid import ChannelAttentionBlock, Conv3x3, mlp
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.options import CentredConfig, check_divides
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["Spt", "SptConfig"]


@dataclass(frozen=True)
class SptConfig(CentredConfig):
    """Everything that makes an :class:`Spt`. The defaults are the release's.

    Attributes:
        embed_dim: width.
        depths: layers in each group.
        inner_dim: width of either half of a layer.
        heads: attention heads; divides ``inner_dim``.
        pools: ratios by which keys and values are pooled.
        pooling: what is pooled: the ``image``, or its pixels laid out with height and width exchanged
            (``transposed``, the release's).
        mlp_ratio: hidden width of the MLPs over ``embed_dim``.
        compress, squeeze: how far a layer's CAB narrows its convolutions and its channel attention.
        fusion_compress, fusion_squeeze: the same for the CAB of a group.
        width: channels of the upsampler and of the correction.
    """

    embed_dim: int = 96
    depths: tuple[int, ...] = (3, 3, 3, 3, 3, 3)
    inner_dim: int = 64
    heads: int = 4
    pools: tuple[int, ...] = (2, 4, 8)
    pooling: Literal["image", "transposed"] = "image"
    mlp_ratio: float = 2.0
    compress: int = 3
    squeeze: int = 16
    fusion_compress: int = 6
    fusion_squeeze: int = 16
    width: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "inner_dim", self.inner_dim)
        for name, whole in (("compress", self.inner_dim), ("fusion_compress", self.embed_dim)):
            if getattr(self, name) > whole:
                raise ValueError(f"{name}={getattr(self, name)}: expected at most {whole}")
        if self.mlp_ratio <= 0:
            raise ValueError(f"mlp_ratio={self.mlp_ratio}: expected above 0")

    @property
    def multiple(self) -> int:
        """What every pool divides."""
        return math.lcm(*self.pools)


class Pyramid(nn.Module):
    """An image pooled at several scales: mean and maximum of each cell, and what a convolution adds to them.

    Args:
        dim: channels.
        pools: ratios.
        transposed: lay out the pixels with height and width exchanged first.
    """

    def __init__(self, dim: int, pools: tuple[int, ...], transposed: bool) -> None:
        super().__init__()
        self.pools, self.transposed = pools, transposed
        self.convs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1, groups=dim) for _ in pools)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to tokens ``[B, M, C]``, those of the first ratio first."""
        image = x.permute(0, 3, 1, 2)
        if self.transposed:
            image = image.flatten(2).unflatten(2, (x.shape[2], x.shape[1]))
        scales = []
        for ratio, conv in zip(self.pools, self.convs, strict=True):
            height, width = image.shape[2:]
            cells = max(round(height / ratio), 1), max(round(width / ratio), 1)
            pooled = F.adaptive_avg_pool2d(image, cells) + F.adaptive_max_pool2d(image, cells)
            scales.append((pooled + conv(pooled)).flatten(2))
        return torch.cat(scales, 2).transpose(1, 2)


class PyramidAttention(nn.Module):
    """Multi-head attention of every pixel to the image pooled at several scales.

    Nothing holds all pairs: time grows with the pixels times the pooled ones, memory with the pixels.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, pyramid: Pyramid) -> Tensor:
        """``[B, H, W, C]`` to the same shape."""

        def split(tokens: Tensor) -> Tensor:  # [B, N, C] to [B, heads, N, C / heads]
            heads: Tensor = tokens.unflatten(-1, (self.heads, -1))
            return heads.transpose(1, 2)

        q, (k, v) = self.query(x.flatten(1, 2)), self.key_value(self.norm(pyramid(x))).chunk(2, -1)
        attended = F.scaled_dot_product_attention(split(q), split(k), split(v))
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(x.shape))
        return out


class ScaleAwareLayer(nn.Module):
    """A half ``a`` by pyramid attention and a half ``b`` by CAB, joined as ``a`` and ``b - a``; an MLP."""

    def __init__(self, c: SptConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.embed_dim)
        self.split = nn.Linear(c.embed_dim, 2 * c.inner_dim)
        self.attention = PyramidAttention(c.inner_dim, c.heads)
        self.branch = _branch(c, c.inner_dim, c.compress, c.squeeze)
        self.join = nn.Linear(c.inner_dim, c.embed_dim)
        self.join_difference = nn.Linear(c.inner_dim, c.embed_dim)
        self.norm2 = nn.LayerNorm(c.embed_dim)
        self.mlp = mlp(c.embed_dim, c.mlp_ratio)

    def forward(self, x: Tensor, pyramid: Pyramid) -> Tensor:
        a, b = self.split(self.norm1(x)).chunk(2, -1)
        a = self.attention(a, pyramid)
        x = x + self.join(a) + self.join_difference(self.branch(-a, b))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Fusion(nn.Module):
    """Joins two halves of a group: one as it is, and by how much CAB of the other differs from it."""

    def __init__(self, c: SptConfig) -> None:
        super().__init__()
        self.branch = _branch(c, c.embed_dim, c.fusion_compress, c.fusion_squeeze)
        self.join = nn.Linear(c.embed_dim, c.embed_dim)
        self.join_difference = nn.Linear(c.embed_dim, c.embed_dim)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = self.join_difference(self.branch(-a, b)) + self.join(a)
        return out


class ScaleAwareGroup(nn.Module):
    """One half through layers and a convolution, fused with the other; a skip."""

    def __init__(self, c: SptConfig, depth: int) -> None:
        super().__init__()
        self.split = nn.Linear(c.embed_dim, 2 * c.embed_dim)
        self.layers = nn.ModuleList(ScaleAwareLayer(c) for _ in range(depth))
        self.conv = Conv3x3(c.embed_dim, c.embed_dim)
        self.fusion = Fusion(c)

    def forward(self, x: Tensor, pyramid: Pyramid) -> Tensor:
        a, b = self.split(x).chunk(2, -1)
        for layer in self.layers:
            a = layer(a, pyramid)
        out: Tensor = x + self.fusion(self.conv(a), b)
        return out


def _branch(c: SptConfig, dim: int, compress: int, squeeze: int) -> ChannelAttentionBlock:
    # Called with -a, it gives CAB(b) - a.
    return ChannelAttentionBlock(dim, compress, squeeze, c.multiple, "image", weight=1.0)


class Spt(nn.Module):
    """Super-resolution by attention to a pyramid, and back-projection.

    Example:
        >>> import torch
        >>> from geomoe.models.super_resolution.spt import Spt, SptConfig
        >>> model = Spt(SptConfig(scale=2, embed_dim=12, inner_dim=8, depths=(1,), squeeze=4, width=6))
        >>> model(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: SptConfig) -> None:
        super().__init__()
        c = self.config = config
        self.mean = BandMean(c.bands, c.mean)
        self.shallow = conv3x3(c.bands, c.embed_dim)
        self.norm_in = nn.LayerNorm(c.embed_dim)
        self.pyramid = Pyramid(c.inner_dim, c.pools, c.pooling == "transposed")
        self.groups = nn.ModuleList(ScaleAwareGroup(c, depth) for depth in c.depths)
        self.norm_out = nn.LayerNorm(c.embed_dim)
        self.deep = conv3x3(c.embed_dim, c.embed_dim)
        self.head = ShuffleHead(c.embed_dim, c.width, c.scale, c.bands)
        self.correct = nn.Sequential(conv3x3(c.bands, c.width), nn.Conv2d(c.width, c.bands, 1))

    @property
    def contract(self) -> ModelContract:
        # Attention takes in the whole image: no margin makes a tile equal to the scene.
        c = self.config
        tile = -(-64 // c.multiple) * c.multiple
        margin = -(-16 // c.multiple) * c.multiple
        return ModelContract.of_images(c.scale, c.bands, Tiling(c.multiple, tile, margin))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        small = tuple(x.shape[2:])
        large = tuple(self.config.scale * side for side in small)
        shallow = self.shallow(self.mean.subtract(x))
        tokens = self.norm_in(shallow.permute(0, 2, 3, 1))
        for group in self.groups:
            tokens = group(tokens, self.pyramid)
        features = self.deep(self.norm_out(tokens).permute(0, 3, 1, 2)) + shallow
        y = self.head(features) + F.interpolate(x, large, mode="bilinear")
        lost = x - F.interpolate(y, small, mode="bilinear")
        return self.mean.add(y + F.interpolate(self.correct(lost), large, mode="bilinear"))


register("spt", Spt, SptConfig)
