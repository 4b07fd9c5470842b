"""Losses for classes of which there are many samples of some and few of others.

Of logits ``[B, K, ...]`` and truths ``[B, ...]``, for each element by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from geomoe.data.legend import IGNORED

__all__ = ["BY_SHARES", "ElementLoss", "class_balanced", "focal", "logit_adjusted"]

ElementLoss = Callable[[Tensor, Tensor, Sequence[float]], Tensor]
"""Of logits, truths and the number of training samples of each class; 0 where there is no truth."""

_BETA, _GAMMA = 0.999, 2.0


def class_balanced(logits: Tensor, truth: Tensor, counts: Sequence[float]) -> Tensor:
    """Cross-entropy, classes weighed by the inverse of their effective number (Cui et al. 2019).

    ``(1 - beta) / (1 - beta^n)`` with beta 0.999, made so that the mean over classes is 1.
    """
    number = torch.tensor(counts, dtype=torch.float64, device="cpu").clamp_min(1)
    weights = 1 / (1 - _BETA**number)
    weights = (weights / weights.mean()).to(logits)
    return F.cross_entropy(logits, truth, weights, ignore_index=IGNORED, reduction="none")


def focal(logits: Tensor, truth: Tensor, counts: Sequence[float] = ()) -> Tensor:
    """``(1 - p)^2`` times the cross-entropy ``-ln p`` (Lin et al. 2017)."""
    loss = F.cross_entropy(logits, truth, ignore_index=IGNORED, reduction="none")
    return (1 - (-loss).exp()) ** _GAMMA * loss


def logit_adjusted(
    logits: Tensor, truth: Tensor, counts: Sequence[float] | Tensor, strength: float = 1.0
) -> Tensor:
    """Cross-entropy of ``logits + strength ln(pi)``, pi the shares of the classes (Menon et al. 2021).

    What is learned is a classifier for classes that are all alike; with a larger ``strength`` one that leans
    to the rare, with a negative one to the frequent.
    """
    number = torch.as_tensor(counts).to(logits).clamp_min(1)
    lean = strength * (number / number.sum()).log()
    adjusted = logits + lean.view(-1, *(1,) * (logits.dim() - 2))
    return F.cross_entropy(adjusted, truth, ignore_index=IGNORED, reduction="none")


BY_SHARES: dict[str, ElementLoss] = {
    "class_balanced": class_balanced,
    "focal": focal,
    "logit_adjusted": logit_adjusted,
}
"""By name."""
