"""ViT, the vision transformer, and V-MoE, the same with mixtures of experts in every second block.

ViT: Dosovitskiy et al., ICLR 2021; plain, as Beyer et al. 2022 have it: positions by sines and cosines, the
mean of all tokens in the place of a class token. V-MoE: Riquelme et al., NeurIPS 2021, with the router of
that paper (:func:`geomoe.moe.vmoe_router`, which says where it differs).

`base_t` is a small ViT for squares of 64 pixels. Its weights, which ship, have learned without labels
(:mod:`geomoe.tasks.masked_autoencoding`); other networks hold it frozen, beside adapters that learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.hybrid import DropPath, drop_paths
from geomoe.layers.windows import pad_to_multiple
from geomoe.models.adapter_moe import AdapterMoE, freeze_base
from geomoe.models.contract import ModelContract
from geomoe.models.label import Head, Normalise, label_contract
from geomoe.models.options import ClassConfig, check_divides
from geomoe.models.registry import config_of, register
from geomoe.models.sparse_ffn import ROUTERS, SparseConfig, feed_forward
from geomoe.moe.plan import RoutingTrace

__all__ = ["Block", "Vit", "VitConfig", "frozen_base", "positions"]

_LONGEST = 10_000.0
"""Wavelength of the slowest of the positions' waves, over 2 pi, in tokens."""


@dataclass(frozen=True)
class VitConfig(SparseConfig):
    """Everything that makes a :class:`Vit`. The defaults are ViT-S/16's.

    Attributes:
        patch: side of the square of pixels that a token is made of.
        embed_dim: width of the tokens, a multiple of 4.
        depth: blocks.
        heads: of attention; divides ``embed_dim``.
        adapters: ranks of the low-rank experts beside the first layer of attention in every block, between
            which ``router`` chooses for each token; all else but the head keeps the weights that training
            starts from. None for a network that learns as a whole.
    """

    GROWS: ClassVar = ("adapters",)
    ADAPTS: ClassVar = ("classes", "mean", "std")
    """What may differ from the weights that training starts with: what the new data are."""

    patch: int = 16
    embed_dim: int = 384
    depth: int = 12
    heads: int = 6
    adapters: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "embed_dim", self.embed_dim)
        if self.embed_dim % 4:
            raise ValueError(f"embed_dim={self.embed_dim}: expected a multiple of 4, for the positions")
        if self.adapters is not None and not (self.adapters and all(rank >= 1 for rank in self.adapters)):
            raise ValueError(f"adapters={self.adapters!r}: expected ranks from 1, such as [4, 4, 8]")


def positions(height: int, width: int, channels: int, device: torch.device | None = None) -> Tensor:
    """``[H, W, channels]``: sines and cosines of columns, then of rows (Chen et al. 2021, MoCo v3)."""
    waves = _LONGEST ** -(torch.arange(channels // 4, device=device) / (channels // 4))
    y, x = (torch.arange(n, device=device)[:, None] * waves for n in (height, width))
    rows, columns = (torch.cat([angle.sin(), angle.cos()], 1) for angle in (y, x))  # [H or W, channels / 2]
    half = channels // 2
    return torch.cat([columns.expand(height, width, half), rows[:, None].expand(height, width, half)], 2)


class Attention(nn.Module):
    """Of every token of an image to all of them."""

    def __init__(self, c: VitConfig) -> None:
        super().__init__()
        self.heads, dim = c.heads, c.embed_dim
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        if c.adapters is not None:
            router = ROUTERS[c.router](dim, len(c.adapters), **c.router_options)
            self.qkv = AdapterMoE(dim, 3 * dim, c.adapters, router, c.twin)

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        return self.attend(self.qkv(x, trace) if isinstance(self.qkv, AdapterMoE) else self.qkv(x))

    def attend(self, made: Tensor) -> Tensor:
        """``[B, H, W, 3 C]``, queries, keys and values, to ``[B, H, W, C]``."""
        batch, height, width, three = made.shape
        parts = made.view(batch, height * width, 3, self.heads, three // 3 // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # [B, heads, H * W, C / heads] each
        seen = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(seen.transpose(1, 2).reshape(batch, height, width, three // 3))
        return out


class Block(nn.Module):
    """``x + attention(LN(x))``, then ``x + FFN(LN(x))``, the second dense or sparse; on ``[B, H, W, C]``."""

    def __init__(self, c: VitConfig, number: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c.embed_dim), nn.LayerNorm(c.embed_dim)
        self.attention = Attention(c)
        self.ffn = feed_forward(c, c.embed_dim, number, c.depth)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x), trace))
        return x + self.drop_path(self.ffn(self.norm2(x), trace))  # type: ignore[no-any-return]


class Vit(nn.Module):
    """Says what a whole image shows.

    Example:
        >>> import torch
        >>> from geomoe.models.vit import Vit, VitConfig
        >>> model = Vit(VitConfig(classes=("forest", "river"), patch=4, embed_dim=16, depth=2, heads=2))
        >>> model(torch.rand(1, 3, 12, 10)).shape
        torch.Size([1, 2])
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        c = self.config = config
        self.normalise = Normalise(c)
        self.embed = nn.Conv2d(c.bands, c.embed_dim, c.patch, c.patch)
        [drops] = drop_paths(c.drop_path, (c.depth,))
        self.blocks = nn.ModuleList(Block(c, i, p) for i, p in enumerate(drops))
        self.norm = nn.LayerNorm(c.embed_dim)
        self.head = Head(c, c.embed_dim)
        if c.adapters is not None:
            freeze_base(self, self.head)

    @property
    def keeps_start(self) -> bool:
        """Whether training keeps most of the weights that it starts from, and so needs some."""
        return self.config.adapters is not None

    @property
    def contract(self) -> ModelContract:
        return label_contract(self.config, self.config.embed_dim)

    def forward(self, x: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Logits, or features of a network without classes.

        Args:
            x: ``[B, bands, H, W]`` in about [0, 1], of any size; continued to whole patches by mirroring.
            trace: if given, the plan of every mixture is appended to it; rows are tokens, of a committee
                images.

        Returns:
            ``[B, classes]``, or ``[B, embed_dim]``.
        """
        out: Tensor = self.head(self.encode(self.tokens(x), trace).mean((1, 2)), trace)
        return out

    def tokens(self, x: Tensor) -> Tensor:
        """``[B, bands, H, W]`` to ``[B, H / patch, W / patch, C]``: squares with their positions."""
        tokens = self.embed(pad_to_multiple(self.normalise(x), self.config.patch)).permute(0, 2, 3, 1)
        height, width, channels = tokens.shape[1:]
        placed: Tensor = tokens + positions(height, width, channels, tokens.device).to(tokens.dtype)
        return placed

    def encode(self, tokens: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """``[B, H, W, C]``, all tokens of images or some, to what they have become after all blocks."""
        for block in self.blocks:
            tokens = block(tokens, trace)
        out: Tensor = self.norm(tokens)
        return out


def frozen_base(config: ClassConfig, options: Mapping[str, Any] | None = None) -> Vit:
    """A ViT that keeps its weights, for a network that builds on it; it gives features.

    The network's configuration says by ``HOLDS`` as which part it holds it, so that training can begin with
    weights for this part (``--model.start base_t``), and the network by ``keeps_start`` that it has to.

    Args:
        config: of that network, for bands, mean and deviation.
        options: of the ViT, beside those of ``base_t``, such as ``{adapters: [4, 4]}``; adapters learn.

    Raises:
        GeomoeError: options that a ViT does not have.
    """
    facts = {"bands": config.bands, "mean": config.mean, "std": config.std}
    base = Vit(config_of("base_t", {**facts, **(options or {})}))
    freeze_base(base)
    return base


register(
    "base_t",
    Vit,
    VitConfig,
    {"patch": 8, "embed_dim": 96, "depth": 4, "heads": 4},
    gives="label",
    what="Base-T, a small ViT that has learned without labels, for other networks to build on; no experts",
)
_SIZES = {"ti": {"embed_dim": 192, "heads": 3}, "s": {}}
for _size, _options in _SIZES.items():
    register(
        f"vit_{_size}",
        Vit,
        VitConfig,
        _options,
        gives="label",
        what="ViT, the vision transformer; no experts",
    )
    register(
        f"vmoe_{_size}", Vit, VitConfig, {**_options, "sparse": "every_2", "router": "vmoe"}, gives="label"
    )
