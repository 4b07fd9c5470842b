"""As many experts as a row needs: those whose results are predicted to matter.

D2DMoE, Szatkowski et al. 2024.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.kernels.simplex import top
from geomoe.moe.objectives.balance import mean
from geomoe.moe.routing.choice import Choice, Selection
from geomoe.moe.routing.score import Gate, Score
from geomoe.moe.settings import saved

__all__ = ["NormScore", "NormThreshold", "expert_norms", "norm_loss"]


class NormScore(Score):
    """Predicts the norm of each expert's result; the logits are the logarithms of the predictions.

    Args:
        channels: width of the rows.
        num_experts: E, of a block that was split.
        hidden: width of the predictor.
    """

    def __init__(self, channels: int, num_experts: int, hidden: int = 128) -> None:
        super().__init__((num_experts,))
        self.predict = nn.Sequential(Gate(channels, hidden), nn.GELU(), Gate(hidden, num_experts))

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        return (F.softplus(self.predict(rows)) + 1e-12).log()


class NormThreshold(Choice):
    """The experts whose predicted norm reaches ``tau`` times the row's largest, each with weight 1.

    The sum of all experts is the dense block, which tau = 0 gives; the larger tau, the fewer are run.

    Args:
        tau: 0 to 1; may be changed between calls.
    """

    def __init__(self, tau: float = 0.1) -> None:
        super().__init__()
        if not 0 <= tau <= 1:
            raise ValueError(f"tau={tau}: expected 0 to 1")
        self.tau = tau
        saved(self, "tau")

    def forward(self, logits: Tensor, preference: Tensor) -> Selection:
        experts = top(preference, logits.shape[1])
        norms = preference.detach().exp().gather(1, experts)
        kept = norms >= self.tau * norms.amax(1, keepdim=True)
        return Selection(experts, torch.ones_like(logits), logits.softmax(-1), kept)


@torch.no_grad()
def expert_norms(bank: ExpertBank, rows: Tensor) -> Tensor:
    """``[N, E]`` norm of each expert's result on each row: what :class:`NormScore` learns."""
    return torch.stack([bank.expert(e, rows).norm(dim=-1) for e in range(bank.num_experts)], 1)


def norm_loss(logits: Tensor, norms: Tensor) -> Tensor:
    """Mean squared error of predicted norms; the block itself is not trained by it."""
    return mean((logits.exp() - norms.detach()).square())
