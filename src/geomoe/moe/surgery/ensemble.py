"""Separately trained experts behind a gate that is a posterior (Gururangan et al. 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geomoe.moe.routing.score import Score

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
    def of(cls, rows: Tensor, clusters: Tensor, num_clusters: int | None = None) -> PosteriorScore:
        """From training rows ``[N, C]`` and the cluster ``[N]`` of each.

        A cluster without rows has a prior of 0: its expert is never the answer.

        Args:
            rows: of training.
            clusters: int64, of each row.
            num_clusters: E; the largest named plus one by default.

        Raises:
            ValueError: no rows.
        """
        if not len(rows):
            raise ValueError("PosteriorScore: there are no rows to learn clusters from")
        number = int(clusters.max()) + 1 if num_clusters is None else num_clusters
        size = torch.bincount(clusters, minlength=number)
        of_each = size.clamp_min(1)[:, None].to(rows.dtype)
        centres = rows.new_zeros(number, rows.shape[1]).index_add(0, clusters, rows) / of_each
        apart = (rows - centres[clusters]).square().mean(1)
        variances = rows.new_zeros(number).index_add(0, clusters, apart) / of_each[:, 0]
        return cls(centres, torch.where(size > 0, variances.clamp_min(1e-12), 1.0), size)

    def forward(self, rows: Tensor, context: Tensor | None = None) -> Tensor:
        distance = torch.cdist(rows, self.centres, compute_mode=_EXACT).square()  # [N, E]
        width = rows.shape[1] * (2 * math.pi * self.variances).log()
        return self.log_priors - 0.5 * (distance / self.variances + width)
