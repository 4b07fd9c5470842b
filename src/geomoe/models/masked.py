"""Masked autoencoding of images (He et al., CVPR 2022): the decoder, which training alone needs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.models.vit import Block, VitConfig, positions

__all__ = ["Decoder", "squares"]

_FLAT = 1e-3
"""Variance below which a square counts as flat: of images of deviation 1, about two grey levels of 8 bits."""


def squares(x: Tensor, side: int) -> Tensor:
    """``[B, C, H, W]`` to ``[B, H / side, W / side, C side side]``, each square of mean 0 and deviation 1.

    The normalised targets of He et al., section 4.1; what varies by less than two grey levels stays small.
    """
    cut = F.unfold(x, side, stride=side).transpose(1, 2)
    cut = (cut - cut.mean(2, keepdim=True)) / (cut.var(2, correction=0, keepdim=True) + _FLAT).sqrt()
    return cut.view(len(x), x.shape[2] // side, x.shape[3] // side, -1)


class Decoder(nn.Module):
    """What squares that an encoder was not shown look like, from what it made of the others.

    Args:
        features: width of the encoder's tokens.
        outputs: numbers of a square.
        config: of the decoder's blocks.
    """

    def __init__(self, features: int, outputs: int, config: VitConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(features, config.embed_dim)
        self.unseen = nn.Parameter(nn.init.normal_(self.enter.weight.new_empty(config.embed_dim), std=0.02))
        self.blocks = nn.ModuleList(Block(config, i, 0.0) for i in range(config.depth))
        self.norm, self.leave = nn.LayerNorm(config.embed_dim), nn.Linear(config.embed_dim, outputs)

    def forward(self, seen: Tensor, hidden: Tensor) -> Tensor:
        """What is hidden.

        Args:
            seen: ``[B, n, features]``, of the squares that are not hidden, row by row.
            hidden: ``[B, H, W]`` bool, as many in each image.

        Returns:
            ``[B, hidden, outputs]``, row by row.
        """
        shown = self.enter(seen)
        tokens = self.unseen.to(shown.dtype).expand(*hidden.shape, -1)
        tokens = tokens.masked_scatter(~hidden[..., None], shown)
        height, width, channels = tokens.shape[1:]
        tokens = tokens + positions(height, width, channels, tokens.device)
        for block in self.blocks:
            tokens = block(tokens, None)
        out: Tensor = self.leave(self.norm(tokens)[hidden].unflatten(0, (len(hidden), -1)))
        return out
