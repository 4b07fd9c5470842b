"""TTST: Top-k Token Selective Transformer for remote sensing super-resolution.

Xiao et al., IEEE Transactions on Image Processing 2024. HAT with windows of 8 whose branch is residual
token-selective channel attention (RTSCA): attention between channels, of which each keeps its k most alike,
for four k at once.

The same function as the authors' program. Two modules that the paper shows stand in their program and are not
part of its network: a multi-scale feed-forward layer and global context attention.
``feed_forward="multiscale"`` and ``context=True`` put them where the paper has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from geomoe.layers.convolution import BandMean, ShuffleHead
from geomoe.layers.hybrid import HybridConfig, HybridTrunk, OverlappingAttentionBlock, mlp
from geomoe.layers.transposed import ConvolutionalProjection, channel_scores, split_heads
from geomoe.layers.windows import crop_to, pad_to_windows
from geomoe.models.contract import ModelContract, Tiling
from geomoe.models.options import AttentionConfig, check_divides
from geomoe.models.registry import register
from geomoe.moe.plan import RoutingTrace

__all__ = ["Ttst", "TtstConfig"]

_KEPT = (2, 3, 4, 5)
"""Of every so many channels, the four attentions keep all but one: 1/2, 2/3, 3/4, 4/5."""

_KERNELS = (3, 5, 7)
"""Sides of the convolutions of the multi-scale feed-forward layer."""


@dataclass(frozen=True)
class TtstConfig(AttentionConfig):
    """Everything that makes a :class:`Ttst`. The defaults are the authors' program's.

    Attributes:
        mean: 0, as in the release; empty for what the other networks subtract.
        branch_scale: weight of the channel attention, which has as many heads as that of windows.
        overlap: how much larger the key windows of overlapping attention are.
        feed_forward: ``mlp``, or the paper's ``multiscale``, which has no ``mlp_ratio`` in its blocks.
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
        if self.feed_forward == "multiscale":
            check_divides("feed_forward='multiscale': its scales", len(_KERNELS), "embed_dim", self.embed_dim)
        if self.context and self.embed_dim % 2:
            raise ValueError(f"embed_dim={self.embed_dim}: expected an even number, with context")


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
        self.qkv = ConvolutionalProjection(dim, 3 * dim)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.mix = nn.Parameter(torch.full((len(_KEPT),), 0.2))
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        """``x`` and the attention of ``n``, ``[B, H, W, C]`` each, added."""
        q, k, v = self.qkv(n.permute(0, 3, 1, 2)).chunk(3, 1)
        q_heads, k_heads, v_heads = (split_heads(t, self.heads) for t in (q, k, v))
        scores = channel_scores(q_heads, k_heads, self.temperature)  # [B, heads, c, c]
        order = scores.argsort(-1, descending=True).argsort(-1)
        each, attention = scores.shape[-1], torch.zeros_like(scores)
        for of, weight in zip(_KEPT, self.mix, strict=True):
            outside = order >= max(each * (of - 1) // of, 1)
            attention = attention + weight * scores.masked_fill(outside, float("-inf")).softmax(-1)
        mixed = attention.to(v.dtype) @ v_heads  # [B, heads, c, H * W]
        out = self.proj(mixed.flatten(1, 2).unflatten(-1, v.shape[2:]))
        return torch.add(x, out.permute(0, 2, 3, 1), alpha=self.weight)


class MultiscaleFeedForward(nn.Module):
    """Depth-wise convolutions of three sizes, twice; the second take a third of what each first has found."""

    def __init__(self, dim: int) -> None:
        super().__init__()

        def scales() -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim, bias=False) for size in _KERNELS
            )

        self.proj_in = nn.Conv2d(dim, dim, 1, bias=False)
        self.first, self.second = scales(), scales()
        self.proj_out = nn.Conv2d(len(_KERNELS) * dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same shape."""
        y = self.proj_in(x.permute(0, 3, 1, 2))
        thirds = zip(*(conv(y).relu().chunk(len(_KERNELS), 1) for conv in self.first), strict=True)
        found = [conv(torch.cat(third, 1)).relu() for conv, third in zip(self.second, thirds, strict=True)]
        out: Tensor = self.proj_out(torch.cat(found, 1)).permute(0, 2, 3, 1)
        return out


class GlobalContext(nn.Module):
    """``x`` times a map of its surroundings, near and far by a gate of each pixel (LSKNet, 2023)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.far = nn.Conv2d(dim, dim, 5, padding=4, groups=dim, dilation=2)
        self.squeeze_near, self.squeeze_far = (nn.Conv2d(dim, dim // 2, 1) for _ in range(2))
        self.choose = nn.Conv2d(2, 2, 7, padding=3)
        self.expand = nn.Conv2d(dim // 2, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same shape."""
        near = self.near(x.permute(0, 3, 1, 2))
        near, far = self.squeeze_near(near), self.squeeze_far(self.far(near))
        both = torch.cat((near, far), 1)
        pooled = torch.cat((both.mean(1, keepdim=True), both.amax(1, keepdim=True)), 1)
        to_near, to_far = self.choose(pooled).sigmoid().chunk(2, 1)
        return x * self.expand(near * to_near + far * to_far).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


class Ttst(nn.Module):
    """Super-resolution by windows of tokens and selected channels.

    Example:
        >>> import torch
        >>> from geomoe.models.super_resolution.ttst import Ttst, TtstConfig
        >>> model = Ttst(TtstConfig(scale=2, embed_dim=12, depths=(2,), heads=2, window=4))
        >>> model(torch.rand(1, 3, 5, 7)).shape
        torch.Size([1, 3, 10, 14])
    """

    def __init__(self, config: TtstConfig) -> None:
        super().__init__()
        c = self.config = config
        branch = partial(TokenSelectiveChannelAttention, c.embed_dim, c.heads, c.branch_scale)
        feed_forward: Callable[[], nn.Module] = partial(mlp, c.embed_dim, c.mlp_ratio)
        if c.feed_forward == "multiscale":
            feed_forward = partial(MultiscaleFeedForward, c.embed_dim)
        closing: list[Callable[[], nn.Module]] = [
            partial(OverlappingAttentionBlock, c.embed_dim, c.heads, c.window, c.overlap, c.mlp_ratio)
        ]
        if c.context:
            closing.append(partial(GlobalContext, c.embed_dim))
        shared = HybridConfig(c.embed_dim, c.heads, c.window, feed_forward, branch, closing)
        self.mean = BandMean(c.bands, c.mean)
        self.trunk = HybridTrunk(c.bands, shared, c.depths, c.drop_path)
        self.head = ShuffleHead(c.embed_dim, c.width, c.scale, c.bands)

    @property
    def contract(self) -> ModelContract:
        c = self.config
        return ModelContract.of_images(c.scale, c.bands, Tiling(c.window, c.tile, 4 * c.window))

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Super-resolve ``[B, bands, H, W]`` in about [0, 1] to ``[B, bands, s*H, s*W]``; routes nothing."""
        c = self.config
        features, _ = self.trunk(self.mean.subtract(pad_to_windows(x, c.window, c.border)))
        if c.border == "features":
            features = crop_to(features, x)
        out = crop_to(self.head(features), x, c.scale)
        return self.mean.add(out)


register("ttst", Ttst, TtstConfig)
