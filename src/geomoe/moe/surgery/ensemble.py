"""Separately trained experts behind a gate that is a posterior (Gururangan et al. 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geomoe.moe.score import Score

__all__ = ["PosteriorScore"]

_EXACT = "donot_use_mm_for_euclid_dist"
"""Products cancel far from the origin, and torch takes them from a number of rows on."""


class PosteriorScore(Score):
    """``log p(x | cluster) + log p(cluster)``: its softmax is the posterior of each expert's cluster.

    Clusters are spherical normal distributions. Nothing is learned by gradient.

    Args:
        centres: ``[E, C]`` mean of each cluster.
        variances: ``[E]`` of each cluster, in every direction.
        priors: ``[E]`` share of each cluster; even by default.
    """

    centres: Tensor
    variances: Tensor
    log_priors: Tensor

    def __init__(self, centres: Tensor, variances: Tensor, priors: Tensor | None = None) -> None:
        super().__init__((len(centres),))
        even = torch.full((len(centres),), 1 / len(centres), dtype=torch.float32, device=centres.device)
        self.register_buffer("centres", centres.float())
        self.register_buffer("variances", variances.float())
        self.register_buffer("log_priors", (even if priors is None else priors.float() / priors.sum()).log())

    @classmethod
    def of(cls, rows: Tensor, clusters: Tensor) -> PosteriorScore:
        """From training rows ``[N, C]`` and the cluster ``[N]`` of each."""
        members = [rows[clusters == c] for c in range(int(clusters.max()) + 1)]
        centres = torch.stack([m.mean(0) for m in members])
        variances = torch.stack([(m - m.mean(0)).square().mean().clamp_min(1e-12) for m in members])
        return cls(centres, variances, torch.tensor([len(m) for m in members], device=rows.device))

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        distance = torch.cdist(rows, self.centres, compute_mode=_EXACT).square()  # [N, E]
        width = rows.shape[1] * (2 * math.pi * self.variances).log()
        return self.log_priors - 0.5 * (distance / self.variances + width)
