"""SPT: Scale-Aware Backprojection Transformer.

Hao et al., "Scale-Aware Backprojection Transformer for Single Remote Sensing Image Super-Resolution", IEEE
TGRS 2024; its preprint is "Multi-granularity Backprojection Transformer", arXiv 2310.12507. Attention whose
keys and values are pooled at several scales, with HAT's channel attention block (CAB) beside it, and a head
that projects its high-resolution features back to the input and corrects them by what does not agree.

This is a reading of the paper's outline, not of the authors' program; their weights do not fit it. Where
the outline is silent: each scale has an equal share of the heads, and pools by means; a group of blocks ends
with a convolution and a skip, as in HAT; the head is 64 wide, goes up by nearest neighbours and convolutions
and down by strided ones, and projects back once. At x4 that makes 3,213,529 parameters, 2,157 more than the
authors' 3,211,372 (0.1 %), and 24.2 GMAC for 64x64 pixels where theirs has 27.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import BandMean, conv3x3, scale_steps
from geomoe.layers.hybrid import ChannelAttentionBlock, Conv3x3, mlp
from geomoe.layers.windows import pad_to_multiple
from geomoe.models.contract import ModelContract
from geomoe.models.options import CentredConfig, check_divides
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["Spt", "SptConfig"]


@dataclass(frozen=True)
class SptConfig(CentredConfig):
    """Everything that makes an :class:`Spt`. The defaults are our reading of the paper's.

    Attributes:
        embed_dim: width.
        depths: blocks in each group.
        heads: attention heads; divides ``embed_dim``.
        pools: sides of the squares that keys and values are means of; their number divides ``heads``.
        mlp_ratio: hidden width of the MLPs over ``embed_dim``.
        compress, squeeze: how far CAB narrows its convolutions and its channel attention.
        conv_scale: weight of the CAB branch.
        width: channels of the head.
    """

    embed_dim: int = 96
    depths: tuple[int, ...] = (3, 3, 3, 3, 3, 3)
    heads: int = 6
    pools: tuple[int, ...] = (2, 4, 8)
    mlp_ratio: float = 2.0
    compress: int = 3
    squeeze: int = 30
    conv_scale: float = 0.01
    width: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "embed_dim", self.embed_dim)
        if self.heads % len(self.pools):
            raise ValueError(f"pools={self.pools}: expected a number of them that divides heads={self.heads}")
        if self.compress > self.embed_dim:
            raise ValueError(f"compress={self.compress}: expected at most embed_dim={self.embed_dim}")
        if self.mlp_ratio <= 0:
            raise ValueError(f"mlp_ratio={self.mlp_ratio}: expected above 0")

    @property
    def multiple(self) -> int:
        """What every pool divides: the image is padded to whole multiples of it."""
        return math.lcm(*self.pools)


class PyramidAttention(nn.Module):
    """Multi-head attention of every pixel to the image pooled at several scales, each by its own heads.

    Nothing holds all pairs: time grows with the pixels times the pooled ones, memory with the pixels.
    """

    def __init__(self, c: SptConfig) -> None:
        super().__init__()
        self.heads, self.pools = c.heads // len(c.pools), c.pools
        share = c.embed_dim // len(c.pools)
        # No biases: one on the keys would add the same to all scores of a query.
        self.query = nn.Linear(c.embed_dim, c.embed_dim, bias=False)
        self.key_value = nn.ModuleList(nn.Linear(c.embed_dim, 2 * share, bias=False) for _ in c.pools)
        self.proj = nn.Linear(c.embed_dim, c.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]``, H and W multiples of every pool, to the same shape."""

        def split(tokens: Tensor) -> Tensor:  # [B, h, w, c] to [B, heads, h * w, c / heads]
            heads: Tensor = tokens.flatten(1, 2).unflatten(-1, (self.heads, -1))
            return heads.transpose(1, 2)

        image = x.permute(0, 3, 1, 2)
        scales = []
        for q, pool, key_value in zip(
            self.query(x).chunk(len(self.pools), -1), self.pools, self.key_value, strict=True
        ):
            k, v = key_value(F.avg_pool2d(image, pool).permute(0, 2, 3, 1)).chunk(2, -1)
            attended = F.scaled_dot_product_attention(split(q), split(k), split(v))
            scales.append(attended.transpose(1, 2).reshape(q.shape))
        out: Tensor = self.proj(torch.cat(scales, -1))
        return out


class ScaleAwareBlock(nn.Module):
    """``x + attention(LN(x)) + CAB(LN(x))``, then ``x + MLP(LN(x))``."""

    def __init__(self, c: SptConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.embed_dim)
        self.attention = PyramidAttention(c)
        self.branch = ChannelAttentionBlock(
            c.embed_dim, c.compress, c.squeeze, c.multiple, "image", c.conv_scale
        )
        self.norm2 = nn.LayerNorm(c.embed_dim)
        self.mlp = mlp(c.embed_dim, c.mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm1(x)
        x = self.branch(x, n) + self.attention(n)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ScaleAwareGroup(nn.Module):
    """Blocks, a convolution, a skip."""

    def __init__(self, c: SptConfig, depth: int) -> None:
        super().__init__()
        blocks = (ScaleAwareBlock(c) for _ in range(depth))
        self.body = nn.Sequential(*blocks, Conv3x3(c.embed_dim, c.embed_dim))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def _up(width: int, scale: int) -> nn.Module:
    layers: list[nn.Module] = []
    for step in scale_steps(scale):
        layers += [nn.Upsample(scale_factor=step), conv3x3(width, width), nn.LeakyReLU()]
    return nn.Sequential(*layers)


def _down(width: int, scale: int) -> nn.Module:
    layers: list[nn.Module] = []
    for step in scale_steps(scale):
        layers += [nn.Conv2d(width, width, 3, stride=step, padding=1), nn.LeakyReLU()]
    return nn.Sequential(*layers)


class BackProjection(nn.Module):
    """Up, down again, and the difference up once more: ``h + up(x - down(h))`` with ``h = up(x)``.

    The up-projection of Haris et al., "Deep Back-Projection Networks for Super-Resolution", CVPR 2018.
    """

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.up, self.down, self.correct = _up(width, scale), _down(width, scale), _up(width, scale)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C, s*H, s*W]``."""
        high = self.up(x)
        out: Tensor = high + self.correct(x - self.down(high))
        return out


class Spt(nn.Module):
    """Super-resolution by attention to a pyramid, and back-projection.

    Example:
        >>> import torch
        >>> from geomoe.models.spt import Spt, SptConfig
        >>> model = Spt(SptConfig(scale=2, embed_dim=12, depths=(1,), heads=3, squeeze=4, width=6))
        >>> model(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: SptConfig) -> None:
        super().__init__()
        c = self.config = config
        self.mean = BandMean(c.bands, c.mean)
        self.shallow = conv3x3(c.bands, c.embed_dim)
        self.groups = nn.Sequential(*(ScaleAwareGroup(c, depth) for depth in c.depths))
        self.norm = nn.LayerNorm(c.embed_dim)
        self.deep = conv3x3(c.embed_dim, c.embed_dim)
        self.head = nn.Sequential(
            conv3x3(c.embed_dim, c.width),
            nn.LeakyReLU(),
            BackProjection(c.width, c.scale),
            conv3x3(c.width, c.bands),
        )

    @property
    def contract(self) -> ModelContract:
        # Attention takes in the whole image: no margin makes a tile equal to the scene.
        c = self.config
        tile = -(-64 // c.multiple) * c.multiple
        margin = -(-16 // c.multiple) * c.multiple
        return ModelContract(c.scale, c.bands, c.multiple, tile, margin, reach=None)

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        height, width = x.shape[-2:]
        shallow = self.shallow(pad_to_multiple(self.mean.subtract(x), self.config.multiple))
        tokens = self.norm(self.groups(shallow.permute(0, 2, 3, 1)))
        features = shallow + self.deep(tokens.permute(0, 3, 1, 2))
        out: Tensor = self.head(features[..., :height, :width])
        return self.mean.add(out)


register("spt", Spt, SptConfig)
