"""A filter of features by their spatial frequency."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FrequencyFilter"]


class FrequencyFilter(nn.Module):
    """``IFFT(M FFT(x))`` over the cells of a square grid, which is taken to repeat itself at its ends.

    M is a real factor for each frequency and group of channels, 1 at first: a network starts as it was
    without, bit for bit.

    Args:
        side: of the grid, cells.
        groups: of channels, one after the other, that share factors.
    """

    def __init__(self, side: int, groups: int = 1) -> None:
        super().__init__()
        self.groups = groups
        self.change = nn.Parameter(torch.zeros(side, side // 2 + 1, groups))
        """``M - 1``, of the frequencies that :func:`torch.fft.rfft2` gives."""

    def forward(self, x: Tensor) -> Tensor:
        """``[n, side, side, C]`` to the same."""
        change = self.change.repeat_interleave(x.shape[-1] // self.groups, -1)
        found = torch.fft.rfft2(x.float(), dim=(1, 2)) * change
        added: Tensor = torch.fft.irfft2(found, s=x.shape[1:3], dim=(1, 2))
        return x + added.to(x.dtype)
