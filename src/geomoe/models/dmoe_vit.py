"""DMoE-ViT: an expert for easy, for moderate and for hard samples of each class, which say how sure they are.

Lu, Zhao, Chen, Chen, Zhang, "Uncertainty Mixture of Experts Model for Long Tail Crop Type Mapping", Remote
Sensing 17(22) 3752, 2025, as the survey tells it; no program could be had. From there: an autoencoder, whose
error says how hard a sample is; three strata; a ViT for each; a gate that weighs them with the uncertainty
that their evidence leaves. The long tail that is meant is within classes.

Assumed: all sizes; strata that are thirds of each class; that an expert also sees the other strata, at a
fifth of the weight (one that never sees the rest cannot be weighed on it); the gate's form, ``softmax(W f)_m
(1 - u_m)`` made to add up to 1, f the features of all experts; annealing over the first half of the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.evidential import dirichlet, evidential_loss, expected, weighted_fusion
from geomoe.models.options import check_divides
from geomoe.models.patch_map import PatchConfig, PatchMap
from geomoe.models.registry import register
from geomoe.models.stages import Shown, Stage
from geomoe.models.twin import Twin, nearest_width
from geomoe.models.vit import Block, VitConfig
from geomoe.moe import ModuleExperts, OutputGatedMoE, evidence_logits
from geomoe.moe.objectives.balance import mean
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.routing.score import Gate

__all__ = ["ConfidentGate", "DMoEViT", "DMoEViTConfig", "strata", "thresholds_of"]

_OTHERS = 0.2
"""Weight of a sample for the experts of other strata than its own."""


@dataclass(frozen=True)
class DMoEViTConfig(PatchConfig):
    """Everything that makes a :class:`DMoEViT`.

    Attributes:
        step: bands that make a token.
        width: of the tokens.
        depth: blocks of each expert.
        heads: of attention; divide ``width``.
        experts: and strata.
        code: widths of the autoencoder's layers, to the innermost.
        strata: by what samples are divided: ``error`` of the autoencoder, or chance, as a control.
        confident: whether an expert's weight falls with its uncertainty; if not, a control.
        twin: one ViT with as many parameters as all experts (``active`` and ``parameters``: each sample is
            seen by all), or a gate that keeps its random start (``frozen``).
    """

    patch: int = 1
    step: int = 10
    width: int = 64
    depth: int = 2
    heads: int = 4
    experts: int = 3
    code: tuple[int, ...] = (64, 16)
    strata: Literal["error", "chance"] = "error"
    confident: bool = True
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "width", self.width)
        if self.twin == "gated":
            raise ValueError("twin='gated': probabilities of one expert have no gate; choose another twin")

    @property
    def tokens(self) -> int:
        """Of a spectrum."""
        return -(-self.bands // self.step)


def thresholds_of(errors: Tensor, labels: Tensor, classes: int, strata: int) -> Tensor:
    """``[classes, strata - 1]``, the errors that divide the samples of each class into parts of equal size.

    Args:
        errors: ``[N]``.
        labels: ``[N]`` int64.
        classes: how many there are; one without samples has no easy ones.
        strata: how many parts.
    """
    found = errors.new_full((classes, strata - 1), -torch.inf)
    for label in labels.unique().tolist():
        mine = errors[labels == label].sort().values
        for part in range(1, strata):
            if end := round(part * len(mine) / strata):
                found[label, part - 1] = mine[end - 1]
    return found


def strata(errors: Tensor, labels: Tensor, thresholds: Tensor) -> Tensor:
    """``[N]`` int64: 0 for the easy samples of their class, by thresholds that were found before."""
    return (errors[:, None] > thresholds[labels]).sum(1)


class Expert(nn.Module):
    """Tokens ``[n, T, C]`` to the outputs of its evidence ``[n, K]``, and its features ``[n, width]``."""

    def __init__(self, c: DMoEViTConfig, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(c.step * c.patch**2, width)
        self.place = nn.Parameter(torch.randn(c.tokens, width) * 0.02)
        shape = VitConfig(embed_dim=width, depth=c.depth, heads=c.heads, mlp_ratio=2.0)
        self.blocks = nn.ModuleList(Block(shape, number, 0.0) for number in range(c.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(c.classes))

    def forward(self, tokens: Tensor) -> Tensor:
        """``[n, K + width]``, both side by side."""
        y = (self.embed(tokens) + self.place)[:, None]  # [n, 1, T, width]
        for block in self.blocks:
            y = block(y, None)
        features = self.norm(y).mean((1, 2))
        return torch.cat([self.head(features), features], 1)


class ConfidentGate(nn.Module):
    """Logits ``[N, E]`` of what experts say, ``[N, E, K + width]``: of the features of all, and sureness."""

    def __init__(self, c: DMoEViTConfig, width: int, experts: int) -> None:
        super().__init__()
        self.classes, self.confident = len(c.classes), c.confident
        self.linear = Gate(experts * width, experts, bias=False)

    def forward(self, said: Tensor) -> Tensor:
        content: Tensor = self.linear(said[..., self.classes :].flatten(1)).log_softmax(1)
        return content + evidence_logits(said[..., : self.classes]) if self.confident else content


class DMoEViT(PatchMap):
    """Says of every pixel what it shows, from its spectrum, or those of a patch.

    Example:
        >>> import torch
        >>> from geomoe.models.dmoe_vit import DMoEViT, DMoEViTConfig
        >>> config = DMoEViTConfig(bands=9, classes=("maize", "rape"), step=3, width=8, depth=1, heads=2)
        >>> DMoEViT(config).eval()(torch.rand(1, 9, 6, 4)).shape
        torch.Size([1, 2, 6, 4])
    """

    config: DMoEViTConfig
    thresholds: Tensor
    chance: Tensor

    def __init__(self, config: DMoEViTConfig) -> None:
        super().__init__(config)
        c, self.classes = config, len(config.classes)
        self.dense = c.twin in ("active", "parameters")
        experts = [Expert(c, width) for width in ([_twin_width(c)] if self.dense else [c.width] * c.experts)]
        gate = nn.Identity() if self.dense else ConfidentGate(c, c.width, len(experts))
        self.moe = OutputGatedMoE(ModuleExperts(experts), gate)
        self.annealing = 1.0
        if self.dense:
            return
        if c.twin == "frozen":
            gate.requires_grad_(False)
        steps = list(pairwise([c.bands * c.patch**2, *c.code]))
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in steps)
        self.decoder = nn.ModuleList(nn.Linear(b, a) for a, b in reversed(steps))
        self.register_buffer("thresholds", torch.full((self.classes, c.experts - 1), -torch.inf))
        drawn = torch.randn(steps[0][0], generator=torch.Generator().manual_seed(0))
        self.register_buffer("chance", 1000 * drawn, persistent=False)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Autoencoder, experts, gate; of a dense twin the expert alone."""
        experts = Stage("experts", 2, ("moe.bank",), {"evidence": 1.0})
        if self.dense:
            return (experts,)
        first = Stage("autoencoder", 1, ("encoder", "decoder"), {"reconstruction": 1.0})
        return (first, experts, *([] if self.config.twin == "frozen" else [Stage("gate", 1, ("moe.score",))]))

    @property
    def objectives(self) -> Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]:
        """Losses of its own, of what :meth:`answers` gives and the truth."""
        return {"reconstruction": self._reconstruction, "evidence": self._evidence}

    def progress(self, share: float) -> None:
        """How far the stage is: what is said against evidence for wrong classes counts more and more."""
        self.annealing = min(1.0, 2 * share)

    def begin(self, stage: str, batches: Iterator[Shown]) -> None:
        """Before the experts, the strata of each class."""
        if stage != "experts" or self.dense:
            return
        errors, labels = [], []
        for image, given, truth in batches:
            valid, wanted = given.get("valid"), given.get("wanted")
            error = self.each(
                lambda patches, _: self.difficulty(patches)[:, None], 1, image, valid=valid, wanted=wanted
            )
            errors.append(error[:, 0][truth >= 0])
            labels.append(truth[truth >= 0])
        found = thresholds_of(torch.cat(errors), torch.cat(labels), self.classes, self.config.experts)
        self.thresholds.copy_(found)

    def difficulty(self, patches: Tensor) -> Tensor:
        """``[n]``, by what patches ``[n, C, side, side]`` are divided: the autoencoder's error, or chance."""
        if self.config.strata == "chance":  # but always the same of a sample
            return (patches.flatten(1) @ self.chance) % 1
        return self.error(patches).detach()

    def error(self, patches: Tensor) -> Tensor:
        """``[n]``, the autoencoder's mean squared error of patches ``[n, C, side, side]``."""
        y = flat = patches.flatten(1)
        for layer in self.encoder:
            y = layer(y) if layer is self.encoder[0] else layer(F.gelu(y))
        for layer in self.decoder:
            y = layer(F.gelu(y))
        return (y - flat).square().mean(1)

    def _said(self, patches: Tensor) -> Tensor:
        """``[n, E, K + width]``, what every expert says."""
        c = self.config
        bands = F.pad(patches.flatten(2), (0, 0, 0, c.tokens * c.step - c.bands))  # [n, T step, side side]
        return self.moe.results(bands.reshape(len(patches), c.tokens, -1))

    def _mix(self, said: Tensor, trace: RoutingTrace | None) -> Tensor:
        """Logarithms of the mixed probabilities ``[n, K]``: logits, whose softmax is the mixture."""
        alpha = dirichlet(said[..., : self.classes])
        if self.dense:
            return expected(alpha[:, 0]).log()
        return weighted_fusion(alpha, self.moe.weights(said, trace=trace)).log()

    def label(self, patches: Tensor, trace: RoutingTrace | None) -> Tensor:
        return self._mix(self._said(patches), trace)

    def answers(
        self,
        x: Tensor,
        trace: RoutingTrace | None = None,
        valid: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits of the mixture, and what the losses ask for, ``[B, ..., H, W]``; arguments as of `forward`.

        ``evidence`` has E K channels, before the softplus; ``error`` and ``difficulty`` one, but for a twin.
        """
        experts = self.moe.bank.num_experts

        def say(patches: Tensor, trace: RoutingTrace | None) -> Tensor:
            said = self._said(patches)
            hard = [] if self.dense else [self.error(patches)[:, None], self.difficulty(patches)[:, None]]
            return torch.cat([self._mix(said, trace), said[..., : self.classes].flatten(1), *hard], 1)

        sizes = {"classes": self.classes, "evidence": experts * self.classes}
        sizes |= {} if self.dense else {"error": 1, "difficulty": 1}
        parts = self.each(say, sum(sizes.values()), x, trace, valid, wanted).split(list(sizes.values()), 1)
        return dict(zip(sizes, parts, strict=True))

    def _reconstruction(self, answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
        return mean(answers["error"][:, 0][truth >= 0])

    def _evidence(self, answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
        there, experts = truth >= 0, self.moe.bank.num_experts
        labels = truth[there]
        said = answers["evidence"].movedim(1, -1)[there].unflatten(1, (experts, self.classes))
        loss = evidential_loss(dirichlet(said), labels[:, None].expand(-1, experts), self.annealing)
        if self.dense:
            return mean(loss)
        own = strata(answers["difficulty"][:, 0][there], labels, self.thresholds)
        mine = own[:, None] == torch.arange(experts, device=own.device)
        return mean(torch.where(mine, 1.0, _OTHERS) * loss)


def _twin_width(c: DMoEViTConfig) -> int:
    """Of the one expert that has as many parameters as all of them, the nearest multiple of the heads."""
    with torch.device("meta"):

        def size(width: int) -> int:
            return sum(p.numel() for p in Expert(c, width).parameters())

        wanted = c.experts * size(c.width)
        unit = c.heads * (4 if c.heads % 4 else 1)  # a ViT's width is a multiple of 4
        return nearest_width(range(unit, 8 * c.width + unit, unit), size, wanted)


register("dmoe_vit", DMoEViT, DMoEViTConfig, gives="classes")
