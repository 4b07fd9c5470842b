"""TTST: Top-k Token Selective Transformer for remote sensing super-resolution.

Xiao et al., IEEE Transactions on Image Processing 2024. HAT with windows of 8 whose branch is residual
token-selective channel attention (RTSCA): attention between channels, of which each keeps its k most alike,
for four k at once.

The paper describes two modules more that its authors' program does not have: a multi-scale feed-forward
layer and global context attention. ``feed_forward="multiscale"`` and ``context=True`` add them; their details
are our reading: half of the hidden channels pass a 3x3 and half a 5x5 depth-wise convolution; the context is
the mean of all tokens, weighed by a learned softmax (GCNet, Cao et al. 2019), once at the end of each group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import BandMean, ShuffleHead
from geomoe.layers.hybrid import HybridConfig, HybridTrunk, OverlappingAttentionBlock, mlp
from geomoe.layers.transposed import ConvolutionalProjection
from geomoe.layers.windows import crop_to, pad_to_windows
from geomoe.models.contract import ModelContract
from geomoe.models.options import AttentionConfig
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["Ttst", "TtstConfig"]

_KEPT = (1 / 2, 2 / 3, 3 / 4, 4 / 5)
"""Shares of the channels that the four attentions keep."""


@dataclass(frozen=True)
class TtstConfig(AttentionConfig):
    """Everything that makes a :class:`Ttst`. The defaults are the authors' program's.

    Attributes:
        branch_scale: weight of the channel attention, which has as many heads as that of windows.
        overlap: how much larger the key windows of overlapping attention are.
        feed_forward: ``mlp``, or the paper's ``multiscale``.
        context: whether each group ends with the paper's global context attention.
        width: channels of the upsampler.
    """

    window: int = 8
    mean: tuple[float, ...] = (0.0,)
    branch_scale: float = 0.01
    overlap: float = 0.5
    feed_forward: Literal["mlp", "multiscale"] = "mlp"
    context: bool = False
    width: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap < 0:
            raise ValueError(f"overlap={self.overlap}: expected 0 or more")


class TokenSelectiveChannelAttention(nn.Module):
    """RTSCA: attention between the channels of an image, each to the most alike of them.

    Args:
        dim: channels.
        heads: groups of channels that attend among themselves.
        weight: of the branch.
    """

    def __init__(self, dim: int, heads: int, weight: float) -> None:
        super().__init__()
        self.heads, self.weight = heads, weight
        self.qkv = ConvolutionalProjection(dim)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.mix = nn.Parameter(torch.full((len(_KEPT),), 0.2))
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        """``x`` and the attention of ``n``, ``[B, H, W, C]`` each, added."""
        batch, height, width, dim = n.shape
        q, k, v = self.qkv(n.permute(0, 3, 1, 2)).chunk(3, 1)
        each = dim // self.heads

        def split(t: Tensor) -> Tensor:
            return t.reshape(batch, self.heads, each, height * width)

        q, k = (F.normalize(split(t).float(), dim=-1) for t in (q, k))
        scores = q @ k.transpose(-1, -2) * self.temperature  # [B, heads, c, c]
        order = scores.argsort(-1, descending=True).argsort(-1)
        attention = torch.zeros_like(scores)
        for share, weight in zip(_KEPT, self.mix, strict=True):
            outside = order >= max(int(each * share), 1)
            attention = attention + weight * scores.masked_fill(outside, float("-inf")).softmax(-1)
        out = self.proj((attention.to(v.dtype) @ split(v)).reshape(batch, dim, height, width))
        return torch.add(x, out.permute(0, 2, 3, 1), alpha=self.weight)


class MultiscaleFeedForward(nn.Module):
    """Two linear layers, between them depth-wise convolutions of 3x3 and 5x5 on half of the channels each."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        half = max(int(dim * ratio) // 2, 1)
        self.up = nn.Linear(dim, 2 * half)
        self.near = nn.Conv2d(half, half, 3, padding=1, groups=half)
        self.far = nn.Conv2d(half, half, 5, padding=2, groups=half)
        self.down = nn.Linear(2 * half, dim)

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.up(x).permute(0, 3, 1, 2).chunk(2, 1)
        hidden = torch.cat((self.near(near), self.far(far)), 1).permute(0, 2, 3, 1)
        out: Tensor = self.down(F.gelu(hidden))
        return out


class GlobalContext(nn.Module):
    """``x`` and a vector made from the weighed mean of all its tokens (GCNet, Cao et al. 2019)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        squeezed = max(dim // 4, 1)
        self.score = nn.Linear(dim, 1, bias=False)  # a softmax does not see one
        self.transform = nn.Sequential(
            nn.Linear(dim, squeezed), nn.LayerNorm(squeezed), nn.ReLU(), nn.Linear(squeezed, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2)
        weights = self.score(tokens).float().softmax(1).to(x.dtype)  # [B, H * W, 1]
        context: Tensor = self.transform((tokens * weights).sum(1))
        return x + context[:, None, None]


class Ttst(nn.Module):
    """Super-resolution by windows of tokens and selected channels.

    Example:
        >>> import torch
        >>> from geomoe.models.ttst import Ttst, TtstConfig
        >>> model = Ttst(TtstConfig(scale=2, embed_dim=12, depths=(2,), heads=2, window=4))
        >>> model(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: TtstConfig) -> None:
        super().__init__()
        c = self.config = config
        branch = partial(TokenSelectiveChannelAttention, c.embed_dim, c.heads, c.branch_scale)
        kind: Callable[[int, float], nn.Module] = mlp if c.feed_forward == "mlp" else MultiscaleFeedForward
        closing: list[Callable[[], nn.Module]] = [
            partial(OverlappingAttentionBlock, c.embed_dim, c.heads, c.window, c.overlap, c.mlp_ratio)
        ]
        if c.context:
            closing.append(partial(GlobalContext, c.embed_dim))
        shared = HybridConfig(
            c.embed_dim, c.heads, c.window, partial(kind, c.embed_dim, c.mlp_ratio), branch, closing
        )
        self.mean = BandMean(c.bands, c.mean)
        self.trunk = HybridTrunk(c.bands, shared, c.depths, c.drop_path)
        self.head = ShuffleHead(c.embed_dim, c.width, c.scale, c.bands)

    @property
    def contract(self) -> ModelContract:
        c = self.config
        return ModelContract(c.scale, c.bands, c.window, c.tile, 4 * c.window)

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        c = self.config
        features, _ = self.trunk(self.mean.subtract(pad_to_windows(x, c.window, c.border)))
        if c.border == "features":
            features = crop_to(features, x)
        out = crop_to(self.head(features), x, c.scale)
        return self.mean.add(out)


register("ttst", Ttst, TtstConfig)
