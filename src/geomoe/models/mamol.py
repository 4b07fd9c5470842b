"""MaMOL: low-rank experts, beside a frozen transformer, for samples that lack sensors.

Gao, Qu, Li and Dong, "Rethinking Efficient Mixture-of-Experts for Remote Sensing Modality-Missing
Classification", arXiv 2511.11460, 2025. A sensor that a sample lacks has a learned placeholder, and each
pattern of the sensors that are there is a task of one model. Beside the layers of a transformer that keeps
its weights there are two kinds of low-rank experts: dynamic ones, a few of which a router chooses for the
sample by its pattern and its tokens, and static ones, one for all tokens and one for the tokens of each
sensor that is there.

There is no program of the paper, and its foundation model cannot be had; known are the parts, from the
abstract and summaries. Assumed: the base is a small ViT that is trained first, on whole samples, and then
kept (``stages``); experts beside queries, keys and values and beside both layers of the feed-forward part,
each place with a router of its own; four dynamic experts, two for a sample, weighed by their shares; logits
that are linear in the pattern and in the mean of the block's tokens, both from 0; ranks 8, of the sensors'
experts 4; a share of .7 of the samples of the second stage lacks a sensor; the head learns in both stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.missing import Placeholders, drop_sensors, pattern_count, pattern_of
from geomoe.layers.sensors import by_band
from geomoe.models.options import check_divides
from geomoe.models.patch_map import SensorPatchConfig, SensorPatchMap
from geomoe.models.registry import register
from geomoe.models.stages import Stage
from geomoe.models.twin import Twin, twin_of
from geomoe.moe import ConditionedScore, LinearScore, LowRankExperts, MoE, Router, TopK
from geomoe.moe.plan import RoutingTrace

__all__ = ["DualLinear", "Mamol", "MamolConfig", "Situation"]


@dataclass(frozen=True)
class MamolConfig(SensorPatchConfig):
    """Everything that makes a :class:`Mamol`.

    Attributes:
        cell: side of the square of pixels that a token is made of; divides ``patch``.
        width: of the tokens.
        depth: blocks.
        heads: of attention; divide ``width``.
        hidden: width of the feed-forward part.
        experts: dynamic ones, in each place.
        top_k: of them for each sample.
        rank: of the dynamic experts and of the one for all tokens.
        sensor_rank: of the experts of single sensors.
        missing: share of the samples that lack a sensor more than they do, while the adapters learn.
        twin: what replaces the dynamic experts; see :data:`geomoe.models.twin.Twin`.
    """

    cell: int = 3
    width: int = 64
    depth: int = 3
    heads: int = 4
    hidden: int = 256
    experts: int = 4
    top_k: int = 2
    rank: int = 8
    sensor_rank: int = 4
    missing: float = 0.7
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("cell", self.cell, "patch", self.patch)
        check_divides("heads", self.heads, "width", self.width)
        if not 0 <= self.missing <= 1:
            raise ValueError(f"missing={self.missing}: expected a share, 0 to 1")

    @property
    def cells(self) -> int:
        """Tokens of each sensor."""
        return (self.patch // self.cell) ** 2


class Situation(NamedTuple):
    """What a block's adapters know of the samples.

    Attributes:
        present: ``[n, S]`` bool, the sensors that are there.
        pattern: ``[n, 2 ** S - 1]``, which pattern that is, as one of so many.
        pooled: ``[n, C]``, the mean of the block's tokens.
    """

    present: Tensor
    pattern: Tensor
    pooled: Tensor


class SampleExperts(LowRankExperts):
    """Low-rank experts each of whose rows ``[N, T, C]`` is a whole sample of T tokens."""

    def __init__(self, inputs: int, outputs: int, rank: int, num_experts: int, tokens: int) -> None:
        super().__init__(inputs, outputs, rank, num_experts)
        self.tokens = tokens

    def row_flops(self) -> tuple[int, ...]:
        return tuple(self.tokens * flops for flops in super().row_flops())

    def run(self, rows: Tensor, index: Tensor, counts: tuple[int, ...]) -> Tensor:  # type: ignore[override]
        return self.loop(rows, index, counts)


class Adapters(nn.Module):
    """What dynamic and static experts add to a linear layer's result."""

    def __init__(self, inputs: int, outputs: int, c: MamolConfig) -> None:
        super().__init__()
        sensors = len(c.sensors)
        # Undecided at first; a router that never learns is as random as others.
        content = LinearScore(c.width, c.experts, gain=float(c.twin == "frozen"))
        choice = TopK(c.top_k, "soft" if c.top_k == 1 else "normalised")  # else the one gate would be 1
        router = Router(ConditionedScore(content, pattern_count(sensors)), choice)
        bank = SampleExperts(inputs, outputs, c.rank, c.experts, sensors * c.cells)
        self.dynamic = twin_of(MoE(router, bank), c.twin)
        self.common = LowRankExperts(inputs, outputs, c.rank, 1)
        self.own = LowRankExperts(inputs, outputs, c.sensor_rank, sensors)

    def forward(self, x: Tensor, situation: Situation, trace: RoutingTrace | None) -> Tensor:
        """``[n, T, inputs]``, the tokens of one sensor after the other, to ``[n, T, outputs]``."""
        present, pattern, pooled = situation
        added: Tensor = self.dynamic(x, pooled, context=pattern, trace=trace)
        own = [self.own.expert(s, tokens) for s, tokens in enumerate(x.chunk(present.shape[1], 1))]
        there = present[..., None, None].to(x.dtype)
        return added + self.common.expert(0, x) + (torch.stack(own, 1) * there).flatten(1, 2)


class DualLinear(nn.Linear):
    """A linear layer of the base, and adapters beside it; before these have learned, the layer itself."""

    def __init__(self, inputs: int, outputs: int, c: MamolConfig) -> None:
        super().__init__(inputs, outputs)
        self.adapters = Adapters(inputs, outputs, c)

    def forward(
        self, input: Tensor, situation: Situation | None = None, trace: RoutingTrace | None = None
    ) -> Tensor:
        """``[n, T, inputs]`` to ``[n, T, outputs]``; without a ``situation`` by the base alone."""
        made = super().forward(input)
        return made if situation is None else made + self.adapters(input, situation, trace)


class Heads(nn.Module):
    """Attention of tokens to each other, from their queries, keys and values."""

    def __init__(self, c: MamolConfig) -> None:
        super().__init__()
        self.heads, self.project = c.heads, nn.Linear(c.width, c.width)

    def forward(self, qkv: Tensor) -> Tensor:
        """``[n, T, 3 C]`` to ``[n, T, C]``."""
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [n, heads, T, each]
        seen = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.project(seen.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """``x + attention(LN(x))``, then ``x + FFN(LN(x))``, on ``[n, T, C]``."""

    def __init__(self, c: MamolConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.qkv, self.heads = DualLinear(c.width, 3 * c.width, c), Heads(c)
        self.up, self.down = DualLinear(c.width, c.hidden, c), DualLinear(c.hidden, c.width, c)

    def forward(self, x: Tensor, situation: Situation | None, trace: RoutingTrace | None) -> Tensor:
        if situation is not None:
            situation = situation._replace(pooled=x.mean(1))
        x = x + self.heads(self.qkv(self.norm1(x), situation, trace))
        hidden = F.gelu(self.up(self.norm2(x), situation, trace))
        out: Tensor = x + self.down(hidden, situation, trace)
        return out


class Mamol(SensorPatchMap):
    """Says of every pixel what it shows, from what its sensors measured around it, whichever these are.

    Example:
        >>> import torch
        >>> from geomoe.models.mamol import Mamol, MamolConfig
        >>> sensors = {"hyperspectral": 12, "height": 1}
        >>> model = Mamol(MamolConfig(bands=13, classes=("oak", "pine"), sensors=sensors)).eval()
        >>> present = torch.tensor([True, False]).view(1, 2, 1, 1).expand(1, 2, 6, 4)  # no heights
        >>> model(torch.rand(1, 13, 6, 4), present=present).shape
        torch.Size([1, 2, 6, 4])
    """

    adapting: Tensor
    """Whether it is the adapters that learn, and not the base."""

    def __init__(self, config: MamolConfig) -> None:
        super().__init__(config)
        c = self.c = config
        self.embed = nn.ModuleList(nn.Conv2d(bands, c.width, c.cell, c.cell) for bands in c.sensors.values())
        self.positions = nn.Parameter(torch.empty(len(c.sensors), c.cells, c.width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.placeholders = Placeholders(len(c.sensors), c.width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.norm, self.head = nn.LayerNorm(c.width), nn.Linear(c.width, len(c.classes))
        self.register_buffer("adapting", torch.tensor(True))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The base on whole samples, then what is beside it on samples that lack sensors."""
        names = [name for name, _ in self.named_parameters()]
        beside = [name for name in names if ".adapters." in name or name.startswith("placeholders.")]
        head = [name for name in names if name.startswith("head.")]
        base = [name for name in names if name not in beside]
        return Stage("base", 1.0, tuple(base)), Stage("adapters", 2.0, (*beside, *head))

    def begin(self, stage: str, batches: object = None) -> None:
        """A stage of the training begins."""
        self.adapting.fill_(stage != "base")

    def tokens(self, patches: Tensor, present: Tensor) -> Tensor:
        """``[n, T, width]``, of one sensor after the other."""
        there = by_band(present[..., None, None], self.c.sensors)
        each = patches.masked_fill(~there, 0).split(list(self.c.sensors.values()), 1)
        found = [embed(x).flatten(2).transpose(1, 2) for embed, x in zip(self.embed, each, strict=True)]
        tokens: Tensor = self.placeholders(torch.stack(found, 1), present) + self.positions
        return tokens.flatten(1, 2)

    def label(self, patches: Tensor, trace: RoutingTrace | None, present: Tensor) -> Tensor:
        """As :meth:`SensorPatchMap.label`; raises GeomoeError for a patch whose middle lacks all sensors."""
        base = self.training and not self.adapting
        if self.training and not base:
            present = drop_sensors(present, self.c.missing)
        pattern = F.one_hot(pattern_of(present), pattern_count(len(self.c.sensors)))
        x = self.tokens(patches, present)
        situation = None if base else Situation(present, pattern.to(x.dtype), x)
        for block in self.blocks:
            x = block(x, situation, trace)
        out: Tensor = self.head(self.norm(x).mean(1))
        return out


register("mamol", Mamol, MamolConfig, gives="classes")
