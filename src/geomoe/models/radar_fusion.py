"""Several radars that each say how sure they are and are fused by it; each has token experts of its own.

Guo et al., confidence fusion of several radar modalities for the recognition of targets, as the survey
describes it (its reference 40); paper and program could not be had. From there: a transformer a radar, whose
feed-forward layers are experts of that radar alone, each token's by a router; what it finds of a target is a
distribution and not a point; its answer is evidential; answers are fused by relative confidence. Assumed:
everything in numbers. Two blocks of width 48 with four experts, two for each token by a softmax; the mean of
the tokens becomes a normal distribution, which is drawn from in training and whose mean stands in evaluation;
evidence is the softplus of a linear layer. With the confidence ``c = 1 - u`` of each radar the answer is the
sum of ``c / sum(c)`` times its expected probabilities, and the strength of the fused Dirichlet distribution
the same mean of the radars'. The weight of false evidence in the loss is a tenth, and does not grow. A radar
that sees noise alone loses its weight where training has shown it noise that is another one each time
(``data.noisy``); what comes again it learns by heart: see docs/classification.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from geomoe.layers.evidential import confidence_weights, dirichlet, evidential_loss, expected, uncertainty
from geomoe.layers.sensors import by_band, presence, sensor_slices
from geomoe.models.contract import Input, ModelContract
from geomoe.models.label import Normalise, label_contract
from geomoe.models.options import SensorConfig, check_divides
from geomoe.models.registry import register
from geomoe.models.twin import Twin
from geomoe.models.vit import Vit, VitConfig
from geomoe.moe import AllExperts, ModuleExperts, MoE, Router
from geomoe.moe.plan import PlacedTrace, RoutingTrace
from geomoe.moe.routing.formulas import GivenScore

__all__ = ["RadarFusion", "RadarFusionConfig", "divergence", "evidential"]

_TINY = torch.finfo(torch.float32).tiny
_FALSE_EVIDENCE = 0.1
"""Weight of evidence for wrong classes in the loss."""


@dataclass(frozen=True)
class RadarFusionConfig(SensorConfig):
    """Everything that makes a :class:`RadarFusion`.

    Attributes:
        patch: side of the square of pixels that a token is made of.
        embed_dim: width of the tokens, a multiple of 4.
        depth: blocks of each radar.
        heads: of attention; divide ``embed_dim``.
        mlp_ratio: hidden width of an expert over that of the tokens.
        experts: of each block.
        top_k: for each token.
        fusion: radars are weighed by their ``confidence``, or all that are there alike, ``even``.
        twin: what replaces the experts of tokens; see :data:`geomoe.models.twin.Twin`.
    """

    patch: int = 4
    embed_dim: int = 48
    depth: int = 2
    heads: int = 4
    mlp_ratio: float = 2.0
    experts: int = 4
    top_k: int = 2
    fusion: Literal["confidence", "even"] = "confidence"
    twin: Twin = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divides("heads", self.heads, "embed_dim", self.embed_dim)
        if not 2 <= self.top_k <= self.experts:
            raise ValueError(f"top_k={self.top_k}: expected 2 to experts={self.experts}")

    def encoder(self, bands: int) -> VitConfig:
        """Of the transformer of a radar."""
        return VitConfig(
            bands=bands, mean=(0.0,), std=(1.0,), patch=self.patch, embed_dim=self.embed_dim,
            depth=self.depth, heads=self.heads, mlp_ratio=self.mlp_ratio, sparse="all", experts=self.experts,
            router="softmax", router_options={"top_k": self.top_k}, twin=self.twin,
        )  # fmt: skip


class Radar(nn.Module):
    """``[n, bands, H, W]`` to ``[n, 2 D + K]``: mean and log variance of an embedding, and logits."""

    def __init__(self, c: RadarFusionConfig, bands: int) -> None:
        super().__init__()
        self.encoder = Vit(c.encoder(bands))
        self.spread = nn.Linear(c.embed_dim, 2 * c.embed_dim)
        self.head = nn.Linear(c.embed_dim, len(c.classes)) if c.classes else None

    def forward(self, x: Tensor, trace: RoutingTrace | None) -> Tensor:
        spread = self.spread(self.encoder(x, trace))
        if self.head is None:
            return spread  # type: ignore[no-any-return]
        mean, log_variance = spread.chunk(2, 1)
        drawn = torch.randn_like(mean) * (log_variance / 2).exp() if self.training else 0
        return torch.cat([spread, self.head(mean + drawn)], 1)


class Answer(nn.Module):
    """Of rows ``[n, S, ...]`` what one radar says, ``[n, ...]``."""

    def __init__(self, radar: int) -> None:
        super().__init__()
        self.radar = radar

    def forward(self, rows: Tensor) -> Tensor:
        return rows[:, self.radar]


def _over_present(values: Tensor, present: Tensor) -> Tensor:
    """Mean of ``values`` ``[B, S]`` over the radars that are there."""
    return (values * present).sum() / present.sum().clamp_min(1)


def evidential(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Evidential loss of every radar that is there, averaged, and of what is fused, added up.

    Args:
        answers: as of :meth:`RadarFusion.answers`.
        truth: ``[B]`` int64.
    """
    radars, fused = answers["alpha"], answers["fused alpha"]
    each = evidential_loss(radars, truth[:, None].expand(radars.shape[:2]), _FALSE_EVIDENCE)
    return _over_present(each, answers["present"]) + evidential_loss(fused, truth, _FALSE_EVIDENCE).mean()


def divergence(answers: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """``KL(N(mu, sigma^2) || N(0, 1))`` of the embeddings, over the radars that are there."""
    mean, log_variance = answers["mean"], answers["log variance"]
    each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
    return _over_present(each, answers["present"])


class RadarFusion(nn.Module):
    """Says what a target is, of which several radars have an image.

    Example:
        >>> import torch
        >>> from geomoe.models.radar_fusion import RadarFusion, RadarFusionConfig
        >>> radars = {"profile": 1, "isar": 2}
        >>> config = RadarFusionConfig(classes=("ship", "tank"), sensors=radars, embed_dim=8)
        >>> RadarFusion(config).eval()(torch.rand(1, 3, 16, 16)).shape
        torch.Size([1, 2])
    """

    objectives: ClassVar[Mapping[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]]] = {
        "evidential": evidential,
        "divergence": divergence,
    }
    """Losses of its own, of what :meth:`answers` gives and the truth."""
    takes_present = True
    """:meth:`forward` knows ``present``."""

    def __init__(self, config: RadarFusionConfig) -> None:
        super().__init__()
        c = self.config = config
        self.normalise = Normalise(c)
        self.radars = nn.ModuleList(Radar(c, bands) for bands in c.sensors.values())
        members = [Answer(radar) for radar in range(len(c.sensors))]
        self.fusion = MoE(Router(GivenScore(len(members)), AllExperts()), ModuleExperts(members))

    @property
    def contract(self) -> ModelContract:
        c = self.config
        given = {"image": Input(c.bands, sensors=dict(c.sensors))}
        return replace(label_contract(c, len(c.sensors) * c.embed_dim), inputs=given)

    def answers(
        self, x: Tensor, trace: RoutingTrace | None = None, present: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What is said of B targets by S radars.

        Args:
            x: ``[B, bands, H, W]`` in about [0, 1], of any size; continued to whole patches by mirroring.
            trace: if given, the plans of every radar's blocks are appended to it, a row a token, of the
                targets that it has an image of; then that of the fusion, a row a target, an expert a radar.
            present: ``[B, S, H, W]`` bool, the pixels that each radar measured; all if not given.

        Returns:
            Logits ``[B, K]``, logarithms of probabilities; ``alpha`` ``[B, S, K]`` of each radar, 1 of one
            that is missing, and ``fused alpha`` ``[B, K]``; ``present`` ``[B, S]``, 1 or 0; ``mean`` and
            ``log variance`` of the embeddings, ``[B, S, D]``. Of a network without classes its features.
        """
        c = self.config
        there = presence(x, c.sensors, present)
        y = self.normalise(x).masked_fill(~by_band(there, c.sensors), 0)
        has = there.flatten(2).any(2)  # [B, S]
        found = [
            _seen(radar, y[:, bands], None if present is None else has[:, number], trace)
            for number, (radar, bands) in enumerate(
                zip(self.radars, sensor_slices(c.sensors).values(), strict=True)
            )
        ]
        sizes = (c.embed_dim, c.embed_dim, len(c.classes))
        mean, log_variance, logits = torch.stack(found, 1).split(sizes, -1)
        parts = {"present": has.to(y.dtype), "mean": mean, "log variance": log_variance}
        if not c.classes:
            return {"features": mean.flatten(1), **parts}
        alpha = torch.where(has[..., None], dirichlet(logits), 1.0)
        unsure = uncertainty(alpha) if c.fusion == "confidence" else 1 - parts["present"]
        weights = confidence_weights(unsure, has)
        given = weights.clamp_min(_TINY).log().masked_fill(~has & has.any(1, keepdim=True), -torch.inf)
        rows = torch.cat([expected(alpha), alpha.sum(-1, keepdim=True)], -1)
        said, strength = self.fusion(rows, given, trace=trace).split((len(c.classes), 1), -1)
        return {"label": said.clamp_min(_TINY).log(), "alpha": alpha, "fused alpha": said * strength, **parts}

    def forward(self, x: Tensor, trace: RoutingTrace | None = None, present: Tensor | None = None) -> Tensor:
        """Logits ``[B, classes]``, or features ``[B, S D]`` of a network without classes: see `answers`."""
        return next(iter(self.answers(x, trace, present).values()))


def _seen(radar: nn.Module, x: Tensor, has: Tensor | None, trace: RoutingTrace | None) -> Tensor:
    """What a radar finds, 0 of the images that it ``has`` not, ``[B]``, which it is not shown."""
    if has is None:
        return radar(x, trace)  # type: ignore[no-any-return]
    found: Tensor = radar(x[has], None if trace is None else PlacedTrace(trace, has, (len(x),)))
    return found.new_zeros(len(x), found.shape[1]).index_put((has,), found)


register("radar_fusion", RadarFusion, RadarFusionConfig, gives="label")
