"""Evidence for classes: an answer that says how sure it is, and the fusion of several.

Sensoy, Kaplan, Kandemir, "Evidential Deep Learning to Quantify Classification Uncertainty", NeurIPS 2018: a
network gives evidence ``e_k = softplus(z_k)`` of each of K classes, and with it a Dirichlet distribution of
``alpha_k = e_k + 1`` (its section 3). Of ``S = sum alpha``, ``e_k / S`` is the belief in a class,
``u = K / S`` the uncertainty that is left (its equation 1), and ``alpha_k / S`` the expected probability.
Dempster's rule as of Han, Zhang, Fu, Zhou, "Trusted Multi-View Classification", ICLR 2021, definition 4.

Everywhere ``alpha`` is ``[..., K]``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "belief",
    "confidence_weights",
    "dempster",
    "dirichlet",
    "evidential_loss",
    "expected",
    "uncertainty",
    "uniform_divergence",
    "weighted_fusion",
]


def dirichlet(logits: Tensor) -> Tensor:
    """``alpha`` of a network's outputs ``[..., K]`` of any sign; 1 where there is no evidence. In float32."""
    return F.softplus(logits.float()) + 1


def belief(alpha: Tensor) -> Tensor:
    """``[..., K]``, in each class; with the uncertainty they add up to 1."""
    return (alpha - 1) / alpha.sum(-1, keepdim=True)


def uncertainty(alpha: Tensor) -> Tensor:
    """``[...]``, above 0 to 1, which it is without evidence."""
    return alpha.shape[-1] / alpha.sum(-1)


def expected(alpha: Tensor) -> Tensor:
    """``[..., K]``, probabilities of the classes."""
    return alpha / alpha.sum(-1, keepdim=True)


def uniform_divergence(alpha: Tensor) -> Tensor:
    """``[...]``, the Kullback-Leibler divergence of ``Dir(alpha)`` from ``Dir(1)``, under which all is alike.

    ``ln G(S) - ln G(K) - sum ln G(alpha_k) + sum (alpha_k - 1) (digamma alpha_k - digamma S)``, G the gamma
    function.
    """
    total = alpha.sum(-1, keepdim=True)
    size = torch.lgamma(total).squeeze(-1) - math.lgamma(alpha.shape[-1]) - torch.lgamma(alpha).sum(-1)
    return size + ((alpha - 1) * (torch.digamma(alpha) - torch.digamma(total))).sum(-1)


def evidential_loss(alpha: Tensor, truth: Tensor, annealing: float = 1.0) -> Tensor:
    """``[...]``, the expected cross-entropy under ``Dir(alpha)``, and evidence for wrong classes.

    ``digamma S - digamma alpha_y + annealing KL(Dir(alpha') || Dir(1))``, where ``alpha'`` is ``alpha`` with
    1 in the place of the true class (Sensoy et al., equations 4 and 5).

    Args:
        alpha: ``[..., K]``.
        truth: ``[...]`` int64.
        annealing: weight of the second term, from 0 at first to 1 later, so that evidence is not driven out
            before there is any.
    """
    true = F.one_hot(truth, alpha.shape[-1]).bool()
    expected_loss = torch.digamma(alpha.sum(-1)) - torch.digamma(alpha[true].view(truth.shape))
    return expected_loss + annealing * uniform_divergence(alpha.masked_fill(true, 1.0))


def confidence_weights(uncertain: Tensor, present: Tensor | None = None) -> Tensor:
    """Relative confidence: ``1 - u`` of each of M answers over that of all of them.

    Args:
        uncertain: ``[..., M]``, their uncertainties, 0 to 1.
        present: ``[..., M]`` bool, those that there are; the others, which may be NaN, have weight 0.

    Returns:
        ``[..., M]``, with sum 1; even where none is at all confident, 0 where none is present.
    """
    there = torch.ones_like(uncertain, dtype=torch.bool) if present is None else present
    sure = (1 - uncertain).masked_fill(~there, 0).clamp_min(0)
    total = sure.sum(-1, keepdim=True)
    tiny = torch.finfo(total.dtype).tiny
    even = there / there.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(total > tiny, sure / total.clamp_min(tiny), even)


def weighted_fusion(alpha: Tensor, weights: Tensor) -> Tensor:
    """``[..., K]``, the mean of the expected probabilities of M answers.

    Args:
        alpha: ``[..., M, K]``.
        weights: ``[..., M]``, with sum 1; what has weight 0 may be NaN.
    """
    said = expected(alpha).masked_fill(weights[..., None] == 0, 0)
    return (weights[..., None] * said).sum(-2)


def dempster(alpha: Tensor, present: Tensor | None = None) -> Tensor:
    """``alpha [..., K]`` of M answers ``[..., M, K]``, fused one after the other by Dempster's rule.

    Of beliefs b and b' with uncertainties u and u': ``b_k = (b_k b'_k + b_k u' + b'_k u) / (1 - C)``,
    ``u = u u' / (1 - C)``, C the sum of ``b_i b'_j`` over classes that differ. An answer without evidence
    changes nothing. The order does not matter.

    Args:
        alpha: ``[..., M, K]``.
        present: ``[..., M]`` bool, those that there are; the others count as answers without evidence.
    """
    if present is not None:
        alpha = alpha.masked_fill(~present[..., None], 1.0)
    classes = alpha.shape[-1]
    first, *others = alpha.unbind(-2)
    said, unsure = belief(first), uncertainty(first)[..., None]
    for other in others:
        more, less = belief(other), uncertainty(other)[..., None]
        agreed = said * more + said * less + more * unsure
        open_ = unsure * less
        whole = agreed.sum(-1, keepdim=True) + open_  # 1 - C, without a difference that would cancel
        said, unsure = agreed / whole, open_ / whole
    return said * (classes / unsure) + 1
