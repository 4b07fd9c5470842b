"""Parts of the Mix Transformer: attention to a coarser grid, and a feed-forward part that knows places.

Wang et al., PVT, 2021; Xie et al., SegFormer, 2021.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.norms import ChannelNorm

__all__ = ["CoarseAttention", "MixFFN"]


class CoarseAttention(nn.Module):
    """Attention of tokens ``[B, H, W, C]`` to a grid of them that is ``reduce`` times coarser.

    Args:
        width: C.
        heads: of attention; divide the width.
        reduce: side of the squares of tokens that make one key and one value; H and W are multiples of it.
    """

    def __init__(self, width: int, heads: int, reduce: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.project = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.coarse: nn.Module = nn.Identity()
        if reduce > 1:
            self.coarse = nn.Sequential(nn.Conv2d(width, width, reduce, reduce), ChannelNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.coarse(x.movedim(-1, 1)).movedim(1, -1)
        query, key, value = (self._split(y) for y in (self.query(x), *self.key_value(coarse).chunk(2, -1)))
        seen = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.project(seen.transpose(1, 2).reshape(x.shape))
        return out

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.flatten(1, 2).unflatten(2, (self.heads, -1))
        return heads.transpose(1, 2)  # [B, heads, tokens, each]


class MixFFN(nn.Module):
    """Two linear layers on ``[B, H, W, C]``; a depth-wise convolution between them tells where a token is."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(self.up(x).movedim(-1, 1)).movedim(1, -1)
        out: Tensor = self.down(F.gelu(mixed))
        return out
