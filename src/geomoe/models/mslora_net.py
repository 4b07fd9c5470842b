"""MSLoRA-Net: building footprints by a frozen ViT and low-rank experts, of which each patch has its own.

After the description of Xu et al. in a survey of mixtures of experts in remote sensing, all that could be
had: a large vision transformer that learned before, low-rank experts in its layers, and a routing network
that decides for each patch which experts' weights apply.

All else is assumed: Base-T as the transformer, in squares of 16 x 16 tokens; four experts of rank 4 beside
queries, keys and values and beside both layers of the feed-forward part, in every block; a linear router a
block, which sees what its attention sees and gives each token two experts for all three places, weighed by
their shares; "MS" as several scales: features after the second and the last block, at the tokens' grid and
at half of it, meet in a pyramid, and then, at half the size of the image, the image itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.layers.windows import crop_to, in_windows
from geomoe.models.frozen_map import FrozenMap, FrozenMapConfig
from geomoe.models.registry import register
from geomoe.models.sparse_ffn import DenseFFN
from geomoe.models.vit import Block
from geomoe.moe import ExpertBank, LinearScore, LowRankExperts, Router, TopK
from geomoe.moe.dispatch.run import dispatch
from geomoe.moe.plan import RoutingPlan, RoutingTrace
from geomoe.moe.units import Tokens

__all__ = ["AdaptedBlock", "MSLoRANet", "MSLoRANetConfig", "PlacedAdapters"]

_SKIP = 16
"""Channels of the image where it joins the pyramid."""


@dataclass(frozen=True)
class MSLoRANetConfig(FrozenMapConfig):
    """Everything that makes an :class:`MSLoRANet`.

    Attributes:
        experts: in each block.
        top_k: of them for each token, two or more.
        rank: of each.
        alpha: they are multiplied by ``alpha / rank``.
        levels: blocks, counted from 1, after which features are taken: fine ones, then coarse ones.
        width: channels of the pyramid.
        twin: what replaces the experts of a block: one adapter of the rank of all that a token has
            (``active``), one of the rank of all there are (``parameters``), or the experts behind a router
            that keeps its random start (``frozen``). A token's gates sum to 1, so there is no gated twin.
    """

    experts: int = 4
    top_k: int = 2
    rank: int = 4
    alpha: float = 8.0
    levels: tuple[int, ...] = (2, 4)
    width: int = 64
    twin: Literal["none", "active", "parameters", "frozen"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_only and self.twin != "none":
            raise ValueError(
                f"twin={self.twin!r}: with head_only there are no experts; leave one of them out"
            )
        if not 2 <= self.top_k <= self.experts:
            raise ValueError(f"top_k={self.top_k}: expected 2 to experts={self.experts}")
        if len(self.levels) != 2 or self.levels[0] > self.levels[1]:
            raise ValueError(f"levels={self.levels!r}: expected two blocks, the earlier one first")


class PlacedAdapters(ExpertBank):
    """Experts each of which is a low-rank adapter in each of several places, where one plan holds.

    Args:
        places: width of the input and of the result, by the name of the place.
        rank: of the adapters.
        num_experts: E.
        alpha: as of :class:`geomoe.moe.LowRankExperts`.
    """

    def __init__(
        self, places: Mapping[str, tuple[int, int]], rank: int, num_experts: int, alpha: float
    ) -> None:
        super().__init__()
        self.group_sizes = (num_experts,)
        self.places = nn.ModuleDict(
            {name: LowRankExperts(*sizes, rank, num_experts, alpha) for name, sizes in places.items()}
        )

    def row_flops(self) -> tuple[int, ...]:
        each = [self.at(place).row_flops() for place in self.places]
        return tuple(map(sum, zip(*each, strict=True)))

    def at(self, place: str) -> LowRankExperts:
        """The adapters of a place."""
        found = self.places[place]
        assert isinstance(found, LowRankExperts)
        return found

    def add(self, place: str, layer: nn.Module, x: Tensor, plan: RoutingPlan | None) -> Tensor:
        """``[B, ..., inputs]`` through the ``layer`` of a place and its adapters, or the one there is."""
        tokens, bank = Tokens.of(x), self.at(place)
        rows = tokens.to_rows(x)
        added = bank.expert(0, rows) if plan is None else dispatch(bank, rows, plan)
        made: Tensor = layer(x) + tokens.from_rows(added)
        return made


class AdaptedBlock(nn.Module):
    """The experts of a block of the base, and their router."""

    def __init__(self, c: MSLoRANetConfig, width: int, hidden: int) -> None:
        super().__init__()
        single = {"active": c.top_k, "parameters": c.experts}.get(c.twin)
        experts, rank = (c.experts, c.rank) if single is None else (1, single * c.rank)
        places = {"qkv": (width, 3 * width), "up": (width, hidden), "down": (hidden, width)}
        self.bank = PlacedAdapters(places, rank, experts, c.alpha * rank / c.rank)
        self.router = (
            Router(LinearScore(width, experts), TopK(c.top_k, "normalised")) if single is None else None
        )
        if c.twin == "frozen" and self.router is not None:
            self.router.requires_grad_(False)

    def forward(
        self, x: Tensor, block: Block, window: int, there: Tensor | None, trace: RoutingTrace | None
    ) -> Tensor:
        """``[B, H, W, C]`` through a ``block`` with its adapters; the plan has a row for each token."""
        assert isinstance(block.ffn, DenseFFN)
        up, activation, down = block.ffn.layers
        seen = block.norm1(x)
        plan = self.plan(seen, there, trace)
        qkv = self.bank.add("qkv", block.attention.qkv, seen, plan)
        x = x + in_windows(block.attention.attend, qkv, window)
        hidden = activation(self.bank.add("up", up, block.norm2(x), plan))
        return x + self.bank.add("down", down, hidden, plan)

    def plan(self, seen: Tensor, there: Tensor | None, trace: RoutingTrace | None) -> RoutingPlan | None:
        """Of all tokens; None where there is one adapter for all."""
        if self.router is None:
            return None
        tokens = Tokens.of(seen)
        rows = tokens.to_rows(seen)
        plan: RoutingPlan = self.router(rows, tokens.grid, None, there)
        return plan if trace is None else trace.record(plan, self.router, rows)


class Pyramid(nn.Module):
    """Features of two scales and the image to logits."""

    def __init__(self, c: MSLoRANetConfig, width: int) -> None:
        super().__init__()
        self.fine, self.coarse = (
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, c.width)) for _ in range(2)
        )
        self.smooth, self.skip = conv3x3(c.width, c.width), nn.Conv2d(c.bands, _SKIP, 3, 2, 1)
        self.join, self.head = conv3x3(c.width + _SKIP, c.width // 2), conv3x3(c.width // 2, len(c.classes))

    def forward(self, fine: Tensor, coarse: Tensor, image: Tensor) -> Tensor:
        """``[B, h, w, C]`` twice and ``[B, bands, H, W]``, of whole tokens, to ``[B, classes, H, W]``."""
        tokens = self.fine(fine).permute(0, 3, 1, 2)
        small = F.avg_pool2d(self.coarse(coarse).permute(0, 3, 1, 2), 2, ceil_mode=True)
        large = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
        tokens = F.gelu(self.smooth(tokens + crop_to(large, tokens)))
        skip = self.skip(image)
        joined = F.gelu(self.join(torch.cat([_resized(tokens, skip.shape[2:]), skip], 1)))
        return _resized(self.head(joined), image.shape[2:])


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class MSLoRANet(FrozenMap):
    """Says of every pixel what it shows.

    Example:
        >>> import torch
        >>> from geomoe.models.mslora_net import MSLoRANet, MSLoRANetConfig
        >>> model = MSLoRANet(MSLoRANetConfig(classes=("rest", "building"), window=4))
        >>> model(torch.rand(1, 3, 12, 10)).shape
        torch.Size([1, 2, 12, 10])
    """

    config: MSLoRANetConfig

    def __init__(self, config: MSLoRANetConfig) -> None:
        super().__init__(config)
        c, vit = config, self.base.config
        if c.levels[1] > vit.depth:
            raise ValueError(f"levels={c.levels!r}: the base has {vit.depth} blocks")
        hidden, blocks = int(vit.embed_dim * vit.mlp_ratio), 0 if c.head_only else vit.depth
        self.adapted = nn.ModuleList(AdaptedBlock(c, vit.embed_dim, hidden) for _ in range(blocks))
        self.head = Pyramid(c, vit.embed_dim)

    def features(
        self, seen: Tensor, there: Tensor | None = None, trace: RoutingTrace | None = None
    ) -> list[Tensor]:
        """``[B, H', W', C]`` after each block, of an image of whole tokens."""
        window, after = self.config.window, [self.tokens(seen)]
        for number, block in enumerate(self.base.blocks):
            if self.config.head_only:
                after.append(in_windows(partial(block, trace=None), after[-1], window))
            else:
                after.append(self.adapted[number](after[-1], block, window, there, trace))
        return after[1:]

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            x: ``[B, bands, H, W]``, of any size; continued to whole tokens by mirroring.
            trace: if given, the plan of every block is appended to it; its rows are tokens.
            valid: ``[B, H, W]`` bool, the pixels that there are: the others are seen as the mean of their
                band, and tokens that show none of them are not routed.

        Returns:
            ``[B, classes, H, W]``; of pixels that are not valid too, which mean nothing.
        """
        seen = self.seen(x, valid)
        after = self.features(seen, self.there(valid), trace)
        fine, coarse = (after[level - 1] for level in self.config.levels)
        return crop_to(self.head(fine, coarse, self.base.normalise(seen)), x)


register("mslora_net", MSLoRANet, MSLoRANetConfig, gives="classes")
