"""Banks of convolutions, routed pixel by pixel or window by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.moe.experts.bank import ExpertBank, Rows, linear, size, stacked_linear
from geomoe.moe.kernels.batches import spans
from geomoe.moe.kernels.grouped import Group, routed_products
from geomoe.moe.units import Neighbourhoods, pixels_to_rows

__all__ = ["ConvExperts", "DepthwiseExperts", "HeterogeneousBank"]

_WINDOW = 8
"""Side of the windows that are convolved whole: small ones waste less on other experts' pixels."""


class ConvExperts(ExpertBank):
    """M convolutions of one kernel size, on single pixels with their surroundings or on windows with a halo.

    ``weight`` is ``[M, k * k * C_in, C_out]``, kernel position first, so that an expert is one matrix
    product with rows of :meth:`geomoe.moe.units.Neighbourhoods.gather`.

    Args:
        in_channels, out_channels: widths.
        kernel_size: odd side of the kernel.
        num_experts: M.
        dilation: pixels from one position of the kernel to the next.

    Raises:
        ValueError: an even kernel size.
    """

    convolves = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, num_experts: int, dilation: int = 1
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: expected an odd number")
        self.group_sizes = (num_experts,)
        self.kernel_size, self.dilation = kernel_size, dilation
        self.reach = kernel_size // 2 * dilation
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight, bias = stacked_linear(num_experts, in_channels * kernel_size**2, out_channels)
        assert bias is not None
        self.bias = bias

    def row_flops(self) -> tuple[int, ...]:
        """For a pixel; a window costs as much for each of its pixels."""
        return (2 * size(self.weight),) * self.num_experts

    def kernels(self) -> Tensor:
        """``[M, C_out, C_in, k, k]``, as ``conv2d`` takes them."""
        k = self.kernel_size
        shape = (self.num_experts, k, k, self.in_channels, self.out_channels)
        return self.weight.view(shape).permute(0, 4, 3, 1, 2)

    def take(self, rows: Rows, index: Tensor, expert: int) -> Tensor:
        if isinstance(rows, Neighbourhoods):
            return rows.gather(index, self.kernel_size, self.dilation)
        return rows[index]

    def expert(self, index: int, rows: Tensor) -> Tensor:
        """Expert ``index`` on neighbourhoods ``[n, k * k * C]`` or windows ``[n, C, s + 2r, s + 2r]``."""
        if rows.dim() == 2:
            return linear(rows, self.weight[index], self.bias[index])
        kernel, bias = (t[index].to(rows.dtype) for t in (self.kernels(), self.bias))
        return F.conv2d(rows, kernel, bias, dilation=self.dilation)

    def loop(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        if isinstance(rows, Neighbourhoods) or not len(index):
            return super().loop(rows, index, counts)
        # Taken apart once: indexing a stack for each expert would make each backward fill a whole stack.
        kernels, biases = (t.to(rows.dtype).unbind(0) for t in (self.kernels(), self.bias))
        done = [
            F.conv2d(rows[index[a:b]], kernels[e], biases[e], dilation=self.dilation)
            for e, a, b in spans(counts)
        ]
        return torch.cat(done)

    def everywhere(self, index: int, rows: Rows) -> Tensor:
        if not isinstance(rows, Neighbourhoods):
            return self.expert(index, rows)
        return pixels_to_rows(self.expert(index, rows.image(self.reach)))

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        if not isinstance(rows, Neighbourhoods):
            return self.loop(rows, index, counts)
        return routed_products(rows.flat, rows.centres(index), [self.group(rows, counts)])

    def group(self, rows: Neighbourhoods, counts: tuple[int, ...]) -> Group:
        """What :func:`geomoe.moe.kernels.grouped.routed_products` needs to know of these experts."""
        offsets = rows.offsets(self.kernel_size, self.dilation)
        return Group(self.weight, self.bias, tuple(offsets), counts)

    def windowed(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        """As :meth:`run`, by convolving whole windows in which an expert has pixels."""
        if not isinstance(rows, Neighbourhoods):
            return super().windowed(rows, index, counts)
        _, height, width = rows.grid
        side = _WINDOW + 2 * self.reach
        image = F.pad(rows.image(self.reach), (0, -width % _WINDOW, 0, -height % _WINDOW))
        windows = image.unfold(2, side, _WINDOW).unfold(3, side, _WINDOW).permute(0, 2, 3, 1, 4, 5)
        down, across = windows.shape[1:3]
        number, pixel = index // (height * width), index % (height * width)
        line, column = pixel // width, pixel % width
        window = (number * down + line // _WINDOW) * across + column // _WINDOW  # [m]
        done = []
        kernels, biases = (t.to(windows.dtype).unbind(0) for t in (self.kernels(), self.bias))
        for e, a, b in spans(counts):
            used, slot = window[a:b].unique(return_inverse=True)
            taken = windows[used // (down * across), used // across % down, used % across]
            result = F.conv2d(taken, kernels[e], biases[e], dilation=self.dilation)
            result = result.permute(0, 2, 3, 1)  # [windows, s, s, C_out]
            done.append(result[slot, line[a:b] % _WINDOW, column[a:b] % _WINDOW])
        return torch.cat(done) if done else self.nothing(rows)


class DepthwiseExperts(ExpertBank):
    """E depth-wise convolutions on single pixels with their surroundings: ``y_c = sum_t w_tc x_tc``.

    Args:
        channels: C, in and out.
        kernel_size: odd side of the kernel.
        num_experts: E.
    """

    def __init__(self, channels: int, kernel_size: int, num_experts: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: expected an odd number")
        self.group_sizes = (num_experts,)
        self.kernel_size, self.reach, self.out_channels = kernel_size, kernel_size // 2, channels
        bound = 1 / kernel_size
        self.weight = nn.Parameter(torch.empty(num_experts, kernel_size**2, channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_experts, channels).uniform_(-bound, bound))

    def row_flops(self) -> tuple[int, ...]:
        return (2 * size(self.weight),) * self.num_experts

    def take(self, rows: Rows, index: Tensor, expert: int) -> Tensor:
        if not isinstance(rows, Neighbourhoods):
            raise ValueError("depth-wise experts work on pixels with their surroundings, not on windows")
        return rows.gather(index, self.kernel_size)

    def loop(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        if not len(index):
            return super().loop(rows, index, counts)
        done = []
        weights, biases = (t.unbind(0) for t in (self.weight, self.bias))
        for e, a, b in spans(counts):
            taps = self.take(rows, index[a:b], e)
            taps = taps.unflatten(1, weights[e].shape)
            done.append((taps * weights[e].to(taps.dtype)).sum(1) + biases[e].to(taps.dtype))
        return torch.cat(done)

    def expert(self, index: int, rows: Tensor) -> Tensor:
        taps: Tensor = rows.unflatten(1, self.weight.shape[1:])  # [n, k * k, C]
        return torch.add((taps * self.weight[index].to(rows.dtype)).sum(1), self.bias[index].to(rows.dtype))

    def everywhere(self, index: int, rows: Rows) -> Tensor:
        if not isinstance(rows, Neighbourhoods):
            return super().everywhere(index, rows)
        image = rows.image(self.reach)
        kernel, bias = (t[index].to(image.dtype) for t in (self.kernels(), self.bias))
        return pixels_to_rows(F.conv2d(image, kernel, bias, groups=self.out_channels))

    def kernels(self) -> Tensor:
        """``[E, C, 1, k, k]``, as ``conv2d`` with a group for each channel takes them."""
        k = self.kernel_size
        return self.weight.view(self.num_experts, k, k, -1).permute(0, 3, 1, 2)[:, :, None]


class HeterogeneousBank(ExpertBank):
    """Groups of experts; alike inside a group, different between groups (MFG-HMoE, equation 4).

    Raises:
        ValueError: groups that differ in their number of output channels.
    """

    def __init__(self, groups: Sequence[ConvExperts | DepthwiseExperts]) -> None:
        super().__init__()
        if not all(isinstance(group, ConvExperts | DepthwiseExperts) for group in groups):
            raise ValueError("groups: expected ConvExperts or DepthwiseExperts; ModuleExperts holds anything")
        if len({group.out_channels for group in groups}) != 1:
            raise ValueError("groups of one bank must have the same number of output channels")
        self.groups = nn.ModuleList(groups)
        self.out_channels = groups[0].out_channels
        self.group_sizes = tuple(group.num_experts for group in groups)
        self.reach = max(group.reach for group in groups)
        self.convolves = all(group.convolves for group in groups)

    def __iter__(self) -> Iterator[ExpertBank]:
        for group in self.groups:
            assert isinstance(group, ExpertBank)
            yield group

    def row_flops(self) -> tuple[int, ...]:
        return tuple(flops for group in self for flops in group.row_flops())

    def idle(self, counts: tuple[int, ...]) -> list[nn.Parameter]:
        ends = pairwise([0, *accumulate(self.group_sizes)])
        return [p for group, (a, b) in zip(self, ends, strict=True) for p in group.idle(counts[a:b])]

    def _member(self, index: int) -> tuple[ExpertBank, int]:
        starts = [0, *accumulate(self.group_sizes)]
        group = next(i for i in range(len(self.group_sizes)) if index < starts[i + 1])
        bank = self.groups[group]
        assert isinstance(bank, ExpertBank)
        return bank, index - starts[group]

    def take(self, rows: Rows, index: Tensor, expert: int) -> Tensor:
        group, member = self._member(expert)
        taken = group.take(rows, index, member)
        return taken if isinstance(rows, Neighbourhoods) else self._trimmed(taken, group)

    def _trimmed(self, windows: Tensor, group: ExpertBank) -> Tensor:
        # A window's halo is as wide as the widest kernel wants it.
        spare = self.reach - group.reach
        return windows[..., spare:-spare, spare:-spare] if spare else windows

    def expert(self, index: int, rows: Tensor) -> Tensor:
        group, member = self._member(index)
        return group.expert(member, rows)

    def everywhere(self, index: int, rows: Rows) -> Tensor:
        group, member = self._member(index)
        if isinstance(rows, Neighbourhoods):
            return group.everywhere(member, rows)
        return group.expert(member, self._trimmed(rows, group))

    def run(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        if not isinstance(rows, Neighbourhoods):
            return self.loop(rows, index, counts)
        alike = [group for group in self if isinstance(group, ConvExperts)]
        if len(alike) < len(self.groups):
            return self._by_group(rows, index, counts, windowed=False)
        ends = pairwise([0, *accumulate(self.group_sizes)])
        groups = [group.group(rows, counts[a:b]) for group, (a, b) in zip(alike, ends, strict=True)]
        return routed_products(rows.flat, rows.centres(index), groups)

    def windowed(self, rows: Rows, index: Tensor, counts: tuple[int, ...]) -> Tensor:
        """As :meth:`run`; kernels that see more than a pixel by :meth:`ConvExperts.windowed`."""
        if not isinstance(rows, Neighbourhoods):
            return super().windowed(rows, index, counts)
        return self._by_group(rows, index, counts, windowed=True)

    def _by_group(
        self, rows: Neighbourhoods, index: Tensor, counts: tuple[int, ...], windowed: bool
    ) -> Tensor:
        done, expert, start = [], 0, 0
        for group in self:
            mine = counts[expert : expert + group.num_experts]
            end = start + sum(mine)
            if windowed and group.reach and isinstance(group, ConvExperts):
                done.append(group.windowed(rows, index[start:end], mine))
            else:
                done.append(group.run(rows, index[start:end], mine))
            expert, start = expert + group.num_experts, end
        return torch.cat(done)
