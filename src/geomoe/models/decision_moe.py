"""DecisionMoE: members that each decide by themselves; gates mix their probabilities.

Members may be layers, whole networks or estimators that were fitted elsewhere; a mixture of their densities
(Jacobs et al. 1991) where the gate is learned, a committee where it is even.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe import (
    ModuleExperts,
    MoE,
    OutputGatedMoE,
    agreement_logits,
    confidence_logits,
    softmax_router,
)
from geomoe.moe.plan import RoutingTrace

__all__ = ["VOTES", "CalibratedConfidence", "DecisionMoE", "Vote"]

Vote = Literal["even", "confidence", "agreement", "learned"]


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


VOTES: dict[str, Callable[[Tensor], Tensor]] = {
    "even": lambda said: said.new_zeros(said.shape[:2]),
    "confidence": lambda said: confidence_logits(_log(said)),
    "agreement": agreement_logits,
}
"""Logits of the gate ``[N, E]`` from what members say, probabilities ``[N, E, K]``."""


class CalibratedConfidence(nn.Module):
    """How much surer each member is than it usually is of what it was not taught, over a sharpness.

    Of member e it is ``(max softmax(log p_e / T_e) - usual_e) / sharpness``. The temperature T_e is fitted on
    samples of its own domain that it has not learned from (Guo et al. 2017); ``usual_e`` is its mean
    confidence on those of all other domains, so that a member which is loud everywhere is heard no more than
    others. What domain a sample is of is asked in :meth:`fit` alone.

    Args:
        members: E.
        sharpness: above 0; the smaller it is, the more weight the surest member has.

    Raises:
        ValueError: a sharpness that is not above 0.
    """

    TEMPERATURES = tuple(2 ** (step / 8) for step in range(-16, 25))
    """From 1/4 to 8; what is fitted is the best of them."""
    temperatures: Tensor
    usual: Tensor

    def __init__(self, members: int, sharpness: float = 0.1) -> None:
        super().__init__()
        if sharpness <= 0:
            raise ValueError(f"sharpness={sharpness}: expected more than 0")
        self.sharpness = sharpness
        self.register_buffer("temperatures", torch.ones(members))
        self.register_buffer("usual", torch.zeros(members))

    def confidence(self, said: Tensor) -> Tensor:
        """``[N, E]`` in [1 / K, 1], of probabilities ``[N, E, K]``."""
        return (_log(said) / self.temperatures[:, None]).softmax(-1).amax(-1)

    def forward(self, said: Tensor) -> Tensor:
        """Logits of the gate ``[N, E]``, of probabilities ``[N, E, K]``."""
        return (self.confidence(said) - self.usual) / self.sharpness

    @torch.no_grad()
    def fit(self, said: Tensor, truth: Tensor, domain: Tensor) -> None:
        """Find temperatures and usual confidences on samples that no member has learned from.

        Args:
            said: probabilities ``[N, E, K]``.
            truth: ``[N]`` int64, the class of each sample.
            domain: ``[N]`` int64, the member that was taught samples like it. Of a member without any the
                temperature stays, of one without any of others the usual confidence is 0.
        """
        for e in range(said.shape[1]):
            own = domain == e
            if own.any():
                tried = [F.cross_entropy(_log(said[own, e]) / t, truth[own]) for t in self.TEMPERATURES]
                self.temperatures[e] = self.TEMPERATURES[int(torch.stack(tried).argmin())]
            sure = self.confidence(said)[~own, e]
            self.usual[e] = sure.mean() if len(sure) else 0.0


class DecisionMoE(nn.Module):
    """A mixture of what members say.

    Args:
        members: modules from rows ``[N, ...]`` to logits of classes ``[N, K]``; what is no module (functions,
            estimators of scikit-learn) gives probabilities.
        vote: how they are weighed: all alike (``even``), by the largest probability that each gives
            (``confidence``), by how near each is to the others (``agreement``), by what a gate ``learned``
            of the rows, or by a module of the form of :data:`VOTES`, such as :class:`CalibratedConfidence`.
        channels: of rows ``[N, C]``; needed where the gate is learned.
        frozen: members keep their weights.

    Raises:
        ValueError: a gate that is to be learned of nobody knows how many channels.
    """

    def __init__(
        self,
        members: Sequence[object],
        vote: Vote | nn.Module = "even",
        channels: int | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        said = [nn.Sequential(m, nn.Softmax(1)) if isinstance(m, nn.Module) else m for m in members]
        bank = ModuleExperts(said, frozen=frozen)
        self.moe: MoE | OutputGatedMoE
        if vote != "learned":
            self.moe = OutputGatedMoE(bank, VOTES[vote] if isinstance(vote, str) else vote)
        elif channels is None:
            raise ValueError("vote='learned': give the channels of the rows")
        else:
            self.moe = MoE(softmax_router(channels, bank.num_experts), bank)

    def forward(self, rows: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Logarithms of the mixed probabilities, ``[N, K]``: logits, whose softmax is the mixture."""
        return _log(self.moe(rows, trace=trace))
