"""The trunk of a residual network (He et al. 2016), as ResNet-18 has it, with a norm of single pixels.

A :class:`geomoe.layers.norms.ChannelNorm` in place of batch norm: what is said of a pixel depends on its
surroundings alone, and on no batch. Unlike before batch norm, a convolution's bias counts, so that each has
one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.layers.convolution import conv3x3
from geomoe.layers.norms import ChannelNorm

__all__ = ["ResidualStage", "Stem", "trunk_reach"]


class Stem(nn.Sequential):
    """``[B, bands, H, W]`` to ``[B, width, H / 4, W / 4]`` by three 3x3 convolutions and a max pool.

    The three stand for one of 7x7 (He et al. 2019, "ResNet-C"); the first halves the grid, the pool again.
    """

    def __init__(self, bands: int, width: int) -> None:
        half = max(width // 2, 1)
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((bands, half, 2), (half, half, 1), (half, width, 1)):
            layers += [conv3x3(inputs, outputs, stride), ChannelNorm(outputs), nn.ReLU()]
        super().__init__(*layers, nn.MaxPool2d(3, 2, 1))


class BasicBlock(nn.Module):
    """``relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))``, 3x3 both; the first may halve the grid."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(conv3x3(inputs, outputs, stride), ChannelNorm(outputs))
        self.second = nn.Sequential(conv3x3(outputs, outputs), ChannelNorm(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), ChannelNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class ResidualStage(nn.Sequential):
    """Blocks of one width; the first halves the grid where ``stride`` is 2."""

    def __init__(self, inputs: int, outputs: int, blocks: int, stride: int) -> None:
        super().__init__(
            *(
                BasicBlock(outputs if number else inputs, outputs, 1 if number else stride)
                for number in range(blocks)
            )
        )


def trunk_reach(blocks: Sequence[int]) -> int:
    """Pixels beyond its own that a cell of the last stage sees at most.

    Args:
        blocks: of each stage after a :class:`Stem`; each stage but the first halves the grid.
    """
    reach, cell = 1 + 2 * 2 + 2, 4  # the stem: a convolution of pixels, two and the pool of cells of 2
    for stage, number in enumerate(blocks):
        if stage:
            reach, cell = reach - cell, 2 * cell  # the first convolution steps on the finer grid
        reach += 2 * number * cell
    return reach
