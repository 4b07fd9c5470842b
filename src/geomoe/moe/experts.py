"""Expert banks: experts that share a shape are held as one stacked parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

__all__ = ["ConvExperts", "HeterogeneousBank"]


class ConvExperts(nn.Module):
    """M convolutions of one kernel size, applied to single pixels.

    ``weight`` is ``[M, k * k * C_in, C_out]``, kernel position first, so that an expert is one
    matrix product with rows of :meth:`geomoe.moe.units.Neighbourhoods.gather`.

    Args:
        in_channels, out_channels: widths.
        kernel_size: odd side of the kernel.
        num_experts: M.

    Raises:
        ValueError: an even kernel size.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, num_experts: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: expected an odd number")
        self.kernel_size = kernel_size
        self.num_experts = num_experts
        self.out_channels = out_channels
        fan_in = in_channels * kernel_size**2
        bound = 1 / math.sqrt(fan_in)  # as nn.Conv2d
        self.weight = nn.Parameter(torch.empty(num_experts, fan_in, out_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_experts, out_channels).uniform_(-bound, bound))

    def expert(self, index: int, rows: Tensor) -> Tensor:
        """Expert ``index`` on neighbourhoods ``[n, k * k * C_in]``: ``[n, C_out]``."""
        weight, bias = self.weight[index], self.bias[index]
        return torch.addmm(bias.to(rows.dtype), rows, weight.to(rows.dtype))


class HeterogeneousBank(nn.Module):
    """Groups of experts; alike inside a group, different between groups (MFG-HMoE, equation 4).

    Raises:
        ValueError: groups that differ in their number of output channels.
    """

    def __init__(self, groups: Sequence[ConvExperts]) -> None:
        super().__init__()
        if len({group.out_channels for group in groups}) != 1:
            raise ValueError("groups of one bank must have the same number of output channels")
        self.groups = nn.ModuleList(groups)
        self.out_channels = groups[0].out_channels

    def __iter__(self) -> Iterator[ConvExperts]:
        for group in self.groups:
            assert isinstance(group, ConvExperts)
            yield group

    @property
    def group_sizes(self) -> tuple[int, ...]:
        return tuple(group.num_experts for group in self)

    @property
    def reach(self) -> int:
        """Pixels to each side that an expert may look at."""
        return max(group.kernel_size // 2 for group in self)
