"""Land-MoE: low-rank token experts and filters of frequency that carry a frozen network to other sensors.

Chen, Yan, Zhu, Chen, Liu and Zhang, "Generalizable Multispectral Land Cover Classification via
Frequency-Aware Mixture of Low-Rank Token Experts", arXiv 2505.14088, 2025. After each layer of a foundation
model that keeps its weights, every token is refined by a mixture of experts, each a few learned tokens of low
rank, the ranks unlike; then a filter that all layers share weighs the spatial frequencies of the tokens.

There is no program of the paper; known are the parts, from the abstract and summaries. Assumed: experts of
the form of Rein (Wei et al., CVPR 2024), whose program is known: 100 tokens, the first of which stands for no
change, a linear layer for their values and one for the result, which all layers share, and a factor of .001
on what is added at first; ranks 4, 8, 16 and 32; all experts for each token, weighed by a softmax; the filter
a real factor for each frequency and each of 8 groups of channels; Base-T in the place of the foundation
model, in squares of 16 x 16 tokens; a linear layer in the place of Mask2Former.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.frequency_filter import FrequencyFilter
from geomoe.layers.windows import crop_to, in_windows
from geomoe.models.frozen_map import FrozenMap, FrozenMapConfig
from geomoe.models.options import check_divides
from geomoe.models.registry import register
from geomoe.models.twin import twin_of
from geomoe.moe import AllExperts, LinearScore, ModuleExperts, MoE, Router
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.units import Tokens

__all__ = ["LandMoE", "LandMoEConfig", "TokenExpert"]


@dataclass(frozen=True)
class LandMoEConfig(FrozenMapConfig):
    """Everything that makes a :class:`LandMoE`.

    Attributes:
        ranks: of the experts of each layer.
        tokens: of each expert.
        filtered: whether frequencies are weighed after each layer.
        groups: of channels whose frequencies are weighed alike; divides the width of the base.
        twin: what replaces the experts: one of all their tokens and of the rank that makes it as large as
            they are (``active``: as many operations), one of as many tokens as each has and of the sum of
            their ranks (``parameters``), or the experts behind a gate that keeps its random start
            (``frozen``). Of all experts the gates sum to 1, so there is no gated twin.
    """

    ranks: tuple[int, ...] = (4, 8, 16, 32)
    tokens: int = 100
    filtered: bool = True
    groups: int = 8
    twin: Literal["none", "active", "parameters", "frozen"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_only and self.twin != "none":
            raise ValueError(
                f"twin={self.twin!r}: with head_only there are no experts; leave one of them out"
            )
        if self.tokens < 2:
            raise ValueError(f"tokens={self.tokens}: expected 2 or more, the first of which changes nothing")


class TokenExpert(nn.Module):
    """What of ``m`` learned tokens ``T = A B`` is like each row: ``S[1:] T[1:]``, and the sum of ``S[1:]``.

    ``S = softmax(x T' / sqrt(C))``; the first token takes the share of rows that are to stay as they are.
    A linear layer without bias makes ``S[1:] (T[1:] W + b)`` of the two, and so need not be the expert's own.

    Args:
        width: C, of the rows.
        tokens: m.
        rank: of T.
    """

    def __init__(self, width: int, tokens: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(tokens, rank) / math.sqrt(rank))
        self.b = nn.Parameter(torch.randn(rank, width))

    def forward(self, rows: Tensor) -> Tensor:
        """``[N, C]`` to ``[N, C + 1]``."""
        tokens = self.a @ self.b
        shares = (rows @ tokens.T / math.sqrt(rows.shape[1])).softmax(1)[:, 1:]
        return torch.cat([shares @ tokens[1:].to(shares.dtype), shares.sum(1, keepdim=True)], 1)


class Refinement(nn.Module):
    """``x + scale W (sum of g_e D_e(x) + x)`` for each token, by the experts of one layer; W is given."""

    def __init__(self, c: LandMoEConfig, width: int) -> None:
        super().__init__()
        tokens, total = c.tokens, sum(c.ranks)
        self.scale = nn.Parameter(torch.tensor(0.001))
        self.mix: nn.Module
        if c.twin == "parameters":
            self.mix = TokenExpert(width, tokens, total)
        elif c.twin == "active":
            number = len(c.ranks)
            size = total * (tokens + width) + number * width
            self.mix = TokenExpert(width, number * tokens, max(round(size / (number * tokens + width)), 1))
        else:
            experts = [TokenExpert(width, tokens, rank) for rank in c.ranks]
            bank = ModuleExperts(experts, flops=[4 * tokens * width] * len(experts))
            self.mix = twin_of(MoE(Router(LinearScore(width, len(c.ranks)), AllExperts()), bank), c.twin)

    def forward(
        self, x: Tensor, values: nn.Linear, out: nn.Linear, there: Tensor | None, trace: RoutingTrace | None
    ) -> Tensor:
        """``[B, H, W, C]`` to the same; the plan has a row for each token."""
        tokens = Tokens.of(x)
        rows = tokens.to_rows(x)
        routed = isinstance(self.mix, MoE)
        found = self.mix(rows, grid=tokens.grid, valid=there, trace=trace) if routed else self.mix(rows)
        changed: Tensor = x + self.scale * out(tokens.from_rows(values(found)) + x)
        return changed


class LandMoE(FrozenMap):
    """Says of every pixel what it shows.

    Example:
        >>> import torch
        >>> from geomoe.models.land_moe import LandMoE, LandMoEConfig
        >>> model = LandMoE(LandMoEConfig(classes=("field", "water"), window=4))
        >>> model(torch.rand(1, 3, 12, 10)).shape
        torch.Size([1, 2, 12, 10])
    """

    config: LandMoEConfig

    def __init__(self, config: LandMoEConfig) -> None:
        super().__init__(config)
        c, width = config, self.base.config.embed_dim
        check_divides("groups", c.groups, "embed_dim", width)
        self.head = nn.Linear(width, len(c.classes))
        self.refinements = nn.ModuleList()
        self.filter = FrequencyFilter(c.window, c.groups) if c.filtered and not c.head_only else None
        if not c.head_only:
            self.values, self.out = nn.Linear(width + 1, width, bias=False), nn.Linear(width, width)
            self.refinements.extend(Refinement(c, width) for _ in self.base.blocks)

    def features(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """``[B, H', W', C]``, of the squares of ``patch`` pixels of the image."""
        tokens, there = self.tokens(self.seen(x, valid)), self.there(valid)
        for number, block in enumerate(self.base.blocks):
            tokens = in_windows(partial(block, trace=None), tokens, self.config.window)
            if not self.config.head_only:
                tokens = self.refinements[number](tokens, self.values, self.out, there, trace)
            if self.filter is not None:
                tokens = in_windows(self.filter, tokens, self.config.window)
        out: Tensor = self.base.norm(tokens)
        return out

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            x: ``[B, bands, H, W]``, of any size; continued to whole tokens by mirroring.
            trace: if given, the plan of every layer is appended to it; its rows are tokens.
            valid: ``[B, H, W]`` bool, the pixels that there are: the others are seen as the mean of their
                band, and tokens that show none of them are not routed.

        Returns:
            ``[B, classes, H, W]``; of pixels that are not valid too, which mean nothing.
        """
        said = self.head(self.features(x, trace, valid)).permute(0, 3, 1, 2)
        patch = self.base.config.patch
        return crop_to(F.interpolate(said, scale_factor=patch, mode="bilinear", align_corners=False), x)


register("land_moe", LandMoE, LandMoEConfig, gives="classes")
