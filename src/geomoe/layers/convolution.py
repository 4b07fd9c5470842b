"""Blocks of convolutional super-resolution networks, on ``[B, C, H, W]``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "DIV2K_MEAN",
    "BandMean",
    "ChannelGate",
    "NearestHead",
    "PixelShuffleUpsampler",
    "ResidualBlock",
    "ResidualUnit",
    "ShuffleHead",
    "bottleneck3x3",
    "conv3x3",
    "scale_steps",
    "upsample_nearest",
]

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Of the RGB training images of DIV2K, which the published networks subtract (Agustsson and Timofte 2017)."""


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size, or takes every ``stride``-th pixel; zeros beyond the image."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1)


def bottleneck3x3(channels_in: int, channels_out: int) -> nn.Sequential:
    """Three convolutions in place of one of 3x3, a quarter as wide between (of SwinIR's large network)."""
    narrow = max(channels_in // 4, 1)
    return nn.Sequential(
        conv3x3(channels_in, narrow),
        nn.LeakyReLU(0.2),
        nn.Conv2d(narrow, narrow, 1),
        nn.LeakyReLU(0.2),
        conv3x3(narrow, channels_out),
    )


class BandMean(nn.Module):
    """What is subtracted before a network and added after it.

    Args:
        bands: channels.
        mean: one number, or one for each band. Empty for what the published networks have: DIV2K's mean for
            three bands, 0 for any other number of them.
        peak: what 1 is inside the network: 255 where the paper's pixels go that far.
    """

    mean: Tensor

    def __init__(self, bands: int, mean: tuple[float, ...] = (), peak: float = 1.0) -> None:
        super().__init__()
        self.peak = peak
        mean = mean or (DIV2K_MEAN if bands == 3 else (0.0,))
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)

    def subtract(self, x: Tensor) -> Tensor:
        """``[B, bands, H, W]`` in about [0, 1] to the network's range."""
        return (x - self.mean) * self.peak

    def add(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`subtract`."""
        return x / self.peak + self.mean


class ResidualBlock(nn.Module):
    """``x + factor * conv(relu(conv(x)))``, without normalisation (EDSR, Lim et al. 2017, figure 2)."""

    def __init__(self, channels: int, factor: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, channels))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.body(x), alpha=self.factor)


class ChannelGate(nn.Module):
    """Squeeze and excitation: factors in (0, 1) for channels, from their means (Hu et al. 2018).

    Args:
        channels: in and out.
        squeezed: channels between.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, squeezed)
        self.up = nn.Linear(squeezed, channels)

    def forward(self, means: Tensor) -> Tensor:
        """``[..., C]`` to ``[..., C]``."""
        return torch.sigmoid(self.up(torch.relu(self.down(means))))


def scale_steps(scale: int) -> tuple[int, ...]:
    """The steps in which a network upsamples: 2 for each power of two, or 3 at once."""
    return (3,) if scale == 3 else (2,) * round(math.log2(scale))


class PixelShuffleUpsampler(nn.Sequential):
    """For each step of the scale a 3x3 convolution and a pixel shuffle (Shi et al. 2016).

    Args:
        channels: before and after each step.
        scale: 2, 3, 4 or 8.
    """

    def __init__(self, channels: int, scale: int) -> None:
        layers: list[nn.Module] = []
        for step in scale_steps(scale):
            layers += [conv3x3(channels, channels * step**2), nn.PixelShuffle(step)]
        super().__init__(*layers)


class ShuffleHead(nn.Sequential):
    """Features to an image ``scale`` times as large: narrow, LeakyReLU, upsample, last convolution.

    Args:
        channels: of the features.
        width: of the upsampler.
        scale: 2, 3, 4 or 8.
        bands: of the image.
    """

    def __init__(self, channels: int, width: int, scale: int, bands: int) -> None:
        super().__init__(
            conv3x3(channels, width),
            nn.LeakyReLU(),
            PixelShuffleUpsampler(width, scale),
            conv3x3(width, bands),
        )


def upsample_nearest(x: Tensor, steps: tuple[int, ...], convs: nn.ModuleList) -> Tensor:
    """For each step of the scale pixels repeated, a convolution, a LeakyReLU (ESRGAN, Wang et al. 2018)."""
    for step, conv in zip(steps, convs, strict=True):
        x = F.leaky_relu(conv(F.interpolate(x, scale_factor=step, mode="nearest")), 0.2)
    return x


class NearestHead(nn.Module):
    """Features to an image ``scale`` times as large by repeated pixels, which leave no checkerboard.

    Args:
        channels: of the features.
        width: of the upsampler.
        scale: 2, 3, 4 or 8.
        bands: of the image.
    """

    def __init__(self, channels: int, width: int, scale: int, bands: int) -> None:
        super().__init__()
        self.steps = scale_steps(scale)
        self.narrow = conv3x3(channels, width)
        self.ups = nn.ModuleList(conv3x3(width, width) for _ in self.steps)
        self.high = conv3x3(width, width)
        self.last = conv3x3(width, bands)

    def forward(self, x: Tensor) -> Tensor:
        y = upsample_nearest(F.leaky_relu(self.narrow(x)), self.steps, self.ups)
        out: Tensor = self.last(F.leaky_relu(self.high(y), 0.2))
        return out


class ResidualUnit(nn.Module):
    """``x + conv(relu(conv(relu(x))))``, of 3x3 convolutions (Lin et al., RefineNet, CVPR 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv3x3(width, width), conv3x3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.relu(self.first(F.relu(x))))
        return out
