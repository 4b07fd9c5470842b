"""MixStyle: features with the statistics of other samples, so that no network leans on those of a domain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MixStyle", "mix_styles"]

_EPS = 1e-6


def mix_styles(x: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """Each sample with a mean and deviation of its channels between its own and its partner's.

    No gradient passes through the statistics.

    Args:
        x: ``[B, C, H, W]``.
        partner: ``[B]`` int64, place of the sample that each is mixed with.
        share: ``[B]`` in [0, 1], of its own statistics; at 1 a sample stays as it is.
    """
    variance, mean = torch.var_mean(x.detach(), (2, 3), correction=0, keepdim=True)
    spread, own = (variance + _EPS).sqrt(), share.to(x.dtype).view(-1, 1, 1, 1)
    to_mean, to_spread = (torch.lerp(of[partner], of, own) for of in (mean, spread))
    return (x - mean) / spread * to_spread + to_mean


class MixStyle(nn.Module):
    """Mixes styles within a batch while training, and is the identity in evaluation (Zhou et al. 2021).

    Args:
        probability: that a batch is mixed.
        concentration: of the Beta distribution, twice this value, from which shares are drawn.
    """

    def __init__(self, probability: float = 0.5, concentration: float = 0.1) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"probability={probability}: expected 0 to 1")
        if concentration <= 0:
            raise ValueError(f"concentration={concentration}: expected more than 0")
        self.probability, self.concentration = probability, concentration

    def forward(self, x: Tensor) -> Tensor:
        number = len(x)
        if not self.training or number < 2 or float(torch.rand(())) >= self.probability:
            return x
        alike = torch.full((number,), self.concentration, device=x.device)
        share = torch.distributions.Beta(alike, alike).sample()
        return mix_styles(x, torch.randperm(number, device=x.device), share)
