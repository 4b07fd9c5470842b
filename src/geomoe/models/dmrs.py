"""DMRS: copies of a frozen ViT whose low-rank experts lean to frequent, to medium and to rare classes.

Wang, Zhang, Zhao, Hu, Ma, "DMRS: Long-tailed remote sensing recognition via semantic-aware mixing and
diversity experts", Int. J. Applied Earth Observation and Geoinformation 141, 104623, 2025. Each image goes
through the network once for each expert; what differs is a low-rank adapter of attention's output in every
block. Expert i learns by logits to which ``lambda_i`` times the logarithm of the classes' shares is added, so
that it leans to the frequent or to the rare. There is no gate: the answer is the mean of their probabilities.
While it learns, cells of an image are exchanged for those of an image of the batch whose class is most alike
in meaning.

From the paper and the released program: all of that, and lambda of -0.5, 0 and 1.5 for three. With four
departures. The program puts its adapters on a layer whose forward is never called, so that they get no
gradient and the whole projection is trained; here they take part. It draws classes evenly and corrects for
their shares besides; here either is an option. Its experts begin alike; here A differs, and B is 0. It runs
every adapter on the rows of all experts; here each on its own. Assumed: Base-T in the place of CLIP, learned
class embeddings in the place of embedded names, and meanings from named attributes of classes
(``semantics``); without these, any sample of another class is a partner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.models.contract import ModelContract
from geomoe.models.label import label_contract
from geomoe.models.options import ClassConfig
from geomoe.models.registry import register
from geomoe.models.stages import Shown, Stage
from geomoe.models.vit import Block, frozen_base
from geomoe.moe import AllExperts, LowRankExperts
from geomoe.moe.plan import RoutingPlan, RoutingTrace

__all__ = ["DMRS", "DMRSConfig", "adjusted", "likeness", "mix_cells"]

_SMOOTHING, _BETA = 0.05, 4.0


@dataclass(frozen=True)
class DMRSConfig(ClassConfig):
    """Everything that makes a :class:`DMRS`.

    Attributes:
        rank: of the adapters.
        alpha: they are multiplied by ``alpha / rank``.
        dropout: of what adapters see, while training.
        lean: lambda of each expert; negative to the frequent classes, positive to the rare.
        mixing: whether cells of images are exchanged while training.
        cell: side of a cell, pixels.
        semantics: attributes of each class by name, such as ``{river: [water, trees]}``; for all or none.
        base: options of the frozen ViT, beside those of ``base_t``.
        twin: one adapter with as many parameters as all, that does not lean: ``active`` and ``parameters``
            (every image goes through every expert).
    """

    HOLDS: ClassVar = "base"

    rank: int = 4
    alpha: float = 8.0
    dropout: float = 0.05
    lean: tuple[float, ...] = (-0.5, 0.0, 1.5)
    mixing: bool = True
    cell: int = 8
    semantics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    base: Mapping[str, int] = field(default_factory=dict)
    twin: Literal["none", "active", "parameters"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lean:
            raise ValueError("lean=(): expected a number for each expert")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: expected 0 to 1, below 1")
        if self.semantics and not set(self.classes) <= set(self.semantics):
            missing = sorted(set(self.classes) - set(self.semantics))
            raise ValueError(f"semantics: no attributes of {missing[0]}; give them for all classes or none")


def adjusted(logits: Tensor, shares: Tensor, strength: float) -> Tensor:
    """``logits + strength ln(shares)``, of ``[..., K]`` and ``[K]`` (Menon et al. 2021)."""
    return logits + strength * shares.clamp_min(1e-9).log()


def likeness(classes: Sequence[str], semantics: Mapping[str, Sequence[str]]) -> Tensor:
    """``[K, K]``, the cosine of the sets of attributes of classes; 0 where there are none."""
    sets = [set(semantics.get(name, ())) for name in classes]
    return torch.tensor([[len(a & b) / max(len(a) * len(b), 1) ** 0.5 for b in sets] for a in sets])


def mix_cells(images: Tensor, labels: Tensor, alike: Tensor, cell: int) -> tuple[Tensor, Tensor]:
    """Images with cells of others, and the shares of the classes that they then show.

    A partner is of another class wherever the batch has two: of the one most alike.

    Args:
        images: ``[B, C, H, W]``.
        labels: ``[B]`` int64.
        alike: ``[K, K]``, how alike classes are.
        cell: side of a cell, pixels; those at the edges may be smaller.

    Returns:
        Images, and ``[B, K]`` with sum 1: the exact share of pixels of each class's image.
    """
    number, _, height, width = images.shape
    device = images.device
    score = alike[labels][:, labels] + 1e-3 * torch.rand(number, number, device=device)  # else the first
    partner = score.masked_fill(labels[:, None] == labels, -1.0).argmax(1)
    partner = torch.where((labels[:, None] != labels).any(1), partner, torch.arange(number, device=device))
    rows, columns = -(-height // cell), -(-width // cell)
    share = 1 - torch.distributions.Beta(_BETA, _BETA).sample((number,)).to(device)
    wanted = (share * rows * columns).round().long()
    order = torch.rand(number, rows * columns, device=device).argsort(1).argsort(1)
    cells = (order < wanted[:, None]).view(number, 1, rows, columns)
    mask = cells.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[..., :height, :width]
    given = mask.to(images.dtype).mean((1, 2, 3))[:, None]
    classes = F.one_hot(labels, len(alike)).to(images.dtype)
    return torch.where(mask, images[partner], images), (1 - given) * classes + given * classes[partner]


class CopyAdapters(nn.Linear):
    """A linear layer that keeps its weights, with an adapter for each copy of the batch.

    Its own weights go by the names that they have in a linear layer.
    """

    def __init__(self, c: DMRSConfig, width: int, copies: int) -> None:
        super().__init__(width, width)
        rank = c.rank * len(c.lean) // copies
        self.experts = LowRankExperts(width, width, rank, copies, rank * c.alpha / c.rank)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, input: Tensor) -> Tensor:
        """``[E B, ..., width]``, the copies one after the other."""
        rows = self.dropout(input).flatten(0, -2)
        copies = self.experts.num_experts
        index, counts = torch.arange(len(rows), device=rows.device), (len(rows) // copies,) * copies
        added = self.experts.run(rows, index, counts)
        return super().forward(input) + added.view_as(input)


class DMRS(nn.Module):
    """Says what a whole image shows.

    Example:
        >>> import torch
        >>> from geomoe.models.dmrs import DMRS, DMRSConfig
        >>> small = {"embed_dim": 16, "depth": 2, "heads": 2}
        >>> DMRS(DMRSConfig(classes=("forest", "river"), base=small))(torch.rand(1, 3, 12, 10)).shape
        torch.Size([1, 2])
    """

    takes_truth: ClassVar = True
    """It is told the classes while training, to mix them with the images."""
    keeps_start: ClassVar = True
    """A frozen network with random weights would be of no use."""
    stages: ClassVar = (Stage("experts", 1),)
    shares: Tensor
    alike: Tensor

    def __init__(self, config: DMRSConfig) -> None:
        super().__init__()
        c = self.config = config
        self.lean = (0.0,) if c.twin != "none" else c.lean
        self.base = frozen_base(c, c.base)
        width = self.base.config.embed_dim
        for block in self.base.blocks:
            assert isinstance(block, Block)
            adapted, frozen = CopyAdapters(c, width, len(self.lean)), block.attention.proj
            adapted.weight, adapted.bias = frozen.weight, frozen.bias
            block.attention.proj = adapted
        self.choice = AllExperts()
        if not c.classes:
            return
        self.head = nn.Parameter(torch.randn(len(c.classes), width))
        self.sharpness = nn.Parameter(torch.tensor(16.0))
        self.register_buffer("shares", torch.full((len(c.classes),), 1 / len(c.classes)))
        self.register_buffer("alike", likeness(c.classes, c.semantics), persistent=False)

    @property
    def contract(self) -> ModelContract:
        return label_contract(self.config, self.base.config.embed_dim)

    @property
    def objectives(self) -> Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]:
        """Losses of its own, of what :meth:`answers` gives and the truth."""
        return {"diversity": self._diversity}

    def begin(self, stage: str, batches: Iterator[Shown]) -> None:
        """Count the classes."""
        labels = torch.cat([truth for _, _, truth in batches])
        self.shares.copy_(labels.bincount(minlength=len(self.shares)) / len(labels))

    def features(self, x: Tensor) -> Tensor:
        """``[B, E, C]``, of every expert."""
        copies = len(self.lean)
        tokens = self.base.tokens(x)
        seen: Tensor = self.base.encode(tokens.repeat(copies, 1, 1, 1)).mean((1, 2))
        each: Tensor = seen.unflatten(0, (copies, len(x))).transpose(0, 1)
        return each

    def answers(
        self, x: Tensor, trace: RoutingTrace | None = None, truth: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``label``, logarithms of the mean probabilities ``[B, K]``; ``experts``, logits ``[B, E, K]``.

        With ``truth`` also ``targets`` ``[B, K]``, the shares of the classes in the images, which are mixed.

        Args:
            x: ``[B, bands, H, W]`` in about [0, 1], of any size.
            trace: if given, the even plan of the experts is appended to it; a row is an image.
            truth: ``[B]`` int64, while training.
        """
        targets = {}
        if truth is not None:
            targets["targets"] = F.one_hot(truth, len(self.shares)).to(x.dtype)
            if self.config.mixing and self.training:
                x, targets["targets"] = mix_cells(x, truth, self.alike, self.config.cell)
        found = F.normalize(self.features(x), dim=-1) @ F.normalize(self.head, dim=-1).T
        logits = self.sharpness * found
        weights = self._even(logits, trace)
        mixed = (logits.log_softmax(-1) + weights[..., None].log()).logsumexp(1)
        return {"label": mixed, "experts": logits, **targets}

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, truth: Tensor | None = None) -> Tensor:
        """Logits ``[B, classes]``, or features of a network without classes; arguments as of `answers`."""
        if not self.config.classes:
            return self.features(x).mean(1)
        return self.answers(x, trace, truth)["label"]

    def _even(self, logits: Tensor, trace: RoutingTrace | None) -> Tensor:
        """``[B, E]``, the same weight for every expert, unless a trace wants another plan."""
        images, copies = logits.shape[:2]
        if copies == 1:
            return logits.new_ones(images, 1)
        even = logits.new_zeros(images, copies)
        experts, weights, probabilities, kept = self.choice(even, even)
        plan = RoutingPlan(experts, weights, probabilities, even, (copies,), (images,), kept)
        return (plan if trace is None else trace.record(plan, self)).gates

    def _diversity(self, answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
        """The mean over experts of cross-entropies with their own lean, of soft and smoothed targets."""
        targets = answers.get("targets")
        targets = F.one_hot(truth, len(self.shares)).float() if targets is None else targets
        losses = [
            F.cross_entropy(adjusted(logits, self.shares, lean), targets, label_smoothing=_SMOOTHING)
            for logits, lean in zip(answers["experts"].unbind(1), self.lean, strict=True)
        ]
        return torch.stack(losses).mean()


register("dmrs", DMRS, DMRSConfig, gives="label")
