"""DecisionMoE: members that each decide by themselves; gates mix their probabilities.

Members may be layers, whole networks or estimators that were fitted elsewhere; a mixture of their densities
(Jacobs et al. 1991) where the gate is learned, a committee where it is even.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
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

__all__ = ["VOTES", "DecisionMoE", "Vote"]

Vote = Literal["even", "confidence", "agreement", "learned"]


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


VOTES: dict[str, Callable[[Tensor], Tensor]] = {
    "even": lambda said: said.new_zeros(said.shape[:2]),
    "confidence": lambda said: confidence_logits(_log(said)),
    "agreement": agreement_logits,
}
"""Logits of the gate ``[N, E]`` from what members say, probabilities ``[N, E, K]``."""


class DecisionMoE(nn.Module):
    """A mixture of what members say.

    Args:
        members: modules from rows ``[N, ...]`` to logits of classes ``[N, K]``; what is no module (functions,
            estimators of scikit-learn) gives probabilities.
        vote: how they are weighed: all alike (``even``), by the largest probability that each gives
            (``confidence``), by how near each is to the others (``agreement``), or by what a gate ``learned``
            of the rows.
        channels: of rows ``[N, C]``; needed where the gate is learned.
        frozen: members keep their weights.

    Raises:
        ValueError: a gate that is to be learned of nobody knows how many channels.
    """

    def __init__(
        self,
        members: Sequence[object],
        vote: Vote = "even",
        channels: int | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        said = [nn.Sequential(m, nn.Softmax(1)) if isinstance(m, nn.Module) else m for m in members]
        bank = ModuleExperts(said, frozen=frozen)
        self.moe: MoE | OutputGatedMoE
        if vote != "learned":
            self.moe = OutputGatedMoE(bank, VOTES[vote])
        elif channels is None:
            raise ValueError("vote='learned': give the channels of the rows")
        else:
            self.moe = MoE(softmax_router(channels, bank.num_experts), bank)

    def forward(self, rows: Tensor, trace: RoutingTrace | None = None) -> Tensor:
        """Logarithms of the mixed probabilities, ``[N, K]``: logits, whose softmax is the mixture."""
        return _log(self.moe(rows, trace=trace))
