"""A small U-Net under a budget: eight experts in memory, one of them in time, and cells that need none.

After He et al., reference [48] of the survey of mixtures of experts in remote sensing: segmentation by a
mixture "under tight computational constraints". Neither title nor program is known, so all else is assumed: a
U-Net of depth-wise separable convolutions; at its two coarsest grids each cell's feed-forward part is the one
of eight experts that a router chose for it, times its probability (Switch, Fedus et al. 2022), within a
capacity while training; a decoder that adds up 1x1 convolutions of all grids.

Experts are as wide as the features, so that a cell costs the same with eight as with one. At inference a
budget says which share of the cells is given an expert at all: those whose gate is largest, as the expert's
result is multiplied by it. The budget becomes a least gate for each mixture (:meth:`BudgetMoE.spend`), so
that whether a cell has an expert depends on its surroundings alone, and tiles are what the whole scene is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.layers.windows import crop_to, pad_to_multiple
from geomoe.models.contract import Input, ModelContract, Output, Tiling
from geomoe.models.label import Normalise
from geomoe.models.options import MapConfig
from geomoe.models.registry import register
from geomoe.models.sparse_ffn import DenseFFN, sparse_ffn
from geomoe.models.twin import Twin
from geomoe.moe import Capacity, FeedForwardExperts, LinearScore, MoE, Router, Selection, TopK
from geomoe.moe.plan import RoutingTrace

__all__ = ["BudgetMoE", "BudgetMoEConfig", "Worthwhile"]

_TILE = 512
"""Side of a tile's core, pixels, at the least."""


@dataclass(frozen=True)
class BudgetMoEConfig(MapConfig):
    """Everything that makes a :class:`BudgetMoE`.

    Attributes:
        widths: channels at the size of the image, and of each grid that is half of the one before.
        blocks: of each grid; there are most where cells are few.
        mixed: of the coarsest grids, how many have mixtures.
        experts: in each mixture; 1 is the dense network.
        capacity: places of the experts while training, over those that an even load would need.
        decoder: channels in which grids are added up.
        twin: what replaces the mixtures; see :data:`geomoe.models.twin.Twin`.
    """

    widths: tuple[int, ...] = (16, 32, 64, 96)
    blocks: tuple[int, ...] = (1, 1, 3, 3)
    mixed: int = 2
    experts: int = 8
    capacity: float = 1.25
    decoder: int = 32
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.blocks) != len(self.widths):
            raise ValueError(f"blocks={self.blocks}: expected one for each of widths={self.widths}")
        if self.mixed > len(self.widths):
            raise ValueError(f"mixed={self.mixed}: there are {len(self.widths)} grids")
        if self.capacity <= 0:
            raise ValueError(f"capacity={self.capacity}: expected more than 0")

    @property
    def cells(self) -> int:
        """Side of a cell of the coarsest grid, pixels."""
        side: int = 2 ** (len(self.widths) - 1)
        return side

    @property
    def reach(self) -> int:
        """Pixels of the image that one pixel of the result sees at most, where tiles start on whole cells."""
        # Up: half a cell beside the pixel's own. Blocks: a cell of their grid each. The first convolution: 1.
        up = 3 * self.cells // 2 - 1 if len(self.widths) > 1 else 0
        seen: int = up + sum(blocks * 2**level for level, blocks in enumerate(self.blocks)) + 1
        return seen


class Worthwhile(TopK):
    """The best expert, times its probability; none for a row where that is below ``least``.

    While training every row has one. ``least`` is kept with the weights.
    """

    least: Tensor

    def __init__(self) -> None:
        super().__init__(1, "soft")
        self.register_buffer("least", torch.zeros(()))

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        chosen = super().forward(logits, preference)
        return chosen if self.training else chosen._replace(kept=chosen.weights >= self.least)


class Block(nn.Module):
    """``x + depthwise(LN(x))``, then ``x + FFN(LN(x))``, on ``[B, H, W, C]``."""

    def __init__(self, c: BudgetMoEConfig, width: int, sparse: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=width)

        def mixture() -> MoE:
            score, capacity = LinearScore(width, c.experts), Capacity(c.capacity)
            router = Router(score, Worthwhile(), capacity=capacity)
            return MoE(router, FeedForwardExperts(width, width, c.experts))

        self.ffn = sparse_ffn(mixture, c.twin, width) if sparse else DenseFFN(width, width)

    def forward(self, x: Tensor, valid: Tensor | None, trace: RoutingTrace | None) -> Tensor:
        x = x + self.mix(self.norm1(x).movedim(-1, 1)).movedim(1, -1)
        out: Tensor = x + self.ffn(self.norm2(x), trace, valid)
        return out


class Grid(nn.Module):
    """Blocks of one grid, after what brings features there."""

    def __init__(self, c: BudgetMoEConfig, level: int) -> None:
        super().__init__()
        width, sparse = c.widths[level], level >= len(c.widths) - c.mixed
        self.enter = nn.Conv2d(c.widths[level - 1], width, 2, 2) if level else conv3x3(c.bands, width)
        self.blocks = nn.ModuleList(Block(c, width, sparse) for _ in range(c.blocks[level]))

    def forward(self, x: Tensor, valid: Tensor | None, trace: RoutingTrace | None) -> Tensor:
        x = self.enter(x).movedim(1, -1)
        for block in self.blocks:
            x = block(x, valid, trace)
        return x.movedim(-1, 1)


class BudgetMoE(nn.Module):
    """Says of every pixel what it shows, within a budget.

    Example:
        >>> import torch
        >>> from geomoe.models.budget_moe import BudgetMoE, BudgetMoEConfig
        >>> model = BudgetMoE(BudgetMoEConfig(widths=(4, 8), blocks=(1, 1))).eval()
        >>> model.spend(0.5, [torch.rand(1, 3, 32, 32)])
        >>> model(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 2, 9, 7])
    """

    def __init__(self, config: BudgetMoEConfig) -> None:
        super().__init__()
        c = self.config = config
        self.normalise = Normalise(c)
        self.encoder = nn.ModuleList(Grid(c, level) for level in range(len(c.widths)))
        self.sides = nn.ModuleList(nn.Conv2d(width, c.decoder, 1) for width in c.widths)
        self.head = nn.Conv2d(c.decoder, len(c.classes), 1)

    @property
    def contract(self) -> ModelContract:
        c = self.config
        output = Output("classes", len(c.classes), classes=c.classes, colours=c.colours)
        tile, margin = (-(-side // c.cells) * c.cells for side in (_TILE, c.reach))
        tiling = Tiling(c.cells, tile, margin, c.reach)
        return ModelContract({"image": Input(c.bands)}, {"classes": output}, tiling)

    @torch.no_grad()
    def spend(self, share: float, images: Iterable[Tensor]) -> None:
        """Give from now on an expert to about so large a share of the cells of each mixture, in evaluation.

        Args:
            share: 0 to 1: of cells of images like those that are shown, those with the largest gates.
            images: ``[B, bands, H, W]`` each; none need be shown for 0 and 1. A pixel with a band that is not
                finite is not looked at.

        Raises:
            ValueError: another share, no image to find its gates by, or a network in which nothing is routed,
                or all is alike. What was spent before stays then.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a share of {share} of the cells: expected 0 to 1")
        choices = [module for module in self.modules() if isinstance(module, Worthwhile)]
        if not choices:
            raise ValueError("nothing is routed here, so there is no budget to spend")
        if share in (0, 1):
            for choice in choices:
                choice.least.fill_(0.0 if share else 2.0)  # no gate is above 1
            return
        if self.config.experts == 1:
            raise ValueError(f"a share of {share} of the cells: with one expert all gates are 1; 0 or 1 do")
        found = self._gates(choices, images)
        if not all(map(len, found)):
            raise ValueError(f"a share of {share} of the cells: there is no image with pixels to find it by")
        for choice, gates in zip(choices, found, strict=True):
            ordered = gates.sort(descending=True).values
            choice.least.copy_(ordered[min(int(share * len(ordered)), len(ordered) - 1)])

    def _gates(self, choices: list[Worthwhile], images: Iterable[Tensor]) -> list[Tensor]:
        """Of all cells of the images, for each choice, when all cells have an expert."""
        before, training = [choice.least.clone() for choice in choices], self.training
        gates: dict[nn.Module, list[Tensor]] = {choice: [choice.least.new_zeros(0)] for choice in choices}
        try:
            self.eval()
            for choice in choices:
                choice.least.fill_(0.0)
            for image in images:
                trace = RoutingTrace()
                self(image, trace, image.isfinite().all(1))
                for router, plan in zip(trace.routers, trace, strict=True):
                    assert isinstance(router, Router)
                    gates[router.choice].append(plan.of_valid().weights.flatten())
        finally:
            self.train(training)
            for choice, least in zip(choices, before, strict=True):
                choice.least.copy_(least)
        return [torch.cat(gates[choice]) for choice in choices]

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, valid: Tensor | None = None) -> Tensor:
        """Logits ``[B, classes, H, W]``.

        Args:
            x: ``[B, bands, H, W]``, of any size; continued to whole cells of the coarsest grid by mirroring.
            trace: if given, the plan of every mixture is appended to it; its rows are the cells of its grid.
                What fills up the image is not routed.
            valid: ``[B, H, W]`` bool, the pixels that there are: the others are seen as the mean of their
                band, and a cell is routed only where it holds one that there is.
        """
        cells = self.config.cells
        y = self.normalise(x)
        y = pad_to_multiple(y if valid is None else y.masked_fill(~valid[:, None], 0), cells)
        there: Tensor | None = None
        if valid is not None or y.shape != x.shape:
            whole = x.new_ones(len(x), 1, *x.shape[2:]) if valid is None else valid[:, None].to(x.dtype)
            there = F.pad(whole, (0, y.shape[3] - x.shape[3], 0, y.shape[2] - x.shape[2]))
        size, total = y.shape[2:], x.new_zeros(())
        for level, (grid, side) in enumerate(zip(self.encoder, self.sides, strict=True)):
            there = F.max_pool2d(there, 2) if there is not None and level else there
            y = grid(y, None if there is None else there[:, 0] > 0, trace)
            total = total + F.interpolate(side(y), size, mode="bilinear")
        out: Tensor = self.head(F.gelu(total))
        return crop_to(out, x)


register("budget_moe", BudgetMoE, BudgetMoEConfig, gives="classes")
