"""Attention that weighs channels, places, or both, of images ``[B, C, H, W]`` of any size.

Gains are in (0, 1): of channels and of places (CBAM, Woo et al., ECCV 2018), of rows and columns (coordinate
attention, Hou et al., CVPR 2021), of both at once (scSE, Roy et al., MICCAI 2018). Position and channel
attention add what other places and other channels have (DANet, Fu et al., CVPR 2019), nothing at first. All
but :class:`SpatialAttention` see the whole image. No norm looks at the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geomoe.layers.convolution import ChannelGate
from geomoe.layers.norms import ChannelNorm
from geomoe.layers.precision import at_least_single

__all__ = [
    "CBAM",
    "SCSE",
    "ChannelAffinity",
    "ChannelAttention",
    "CoordinateAttention",
    "DualAttention",
    "PositionAttention",
    "SpatialAttention",
]


class ChannelAttention(nn.Module):
    """Gains of channels from their means and their maxima over the image (CBAM, equation 2).

    Args:
        channels: of the image.
        reduction: channels over those between the two layers, of which there is one at the least.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inside = max(channels // reduction, 1)
        self.mlp = nn.Sequential(nn.Linear(channels, inside), nn.ReLU(), nn.Linear(inside, channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C, 1, 1]`` in (0, 1)."""
        return torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))[..., None, None]


class SpatialAttention(nn.Module):
    """Gains of places from mean and maximum over the channels around them (CBAM, equation 3).

    Args:
        kernel: side of the convolution, odd.
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, 1, H, W]`` in (0, 1)."""
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.conv(seen))


class CBAM(nn.Module):
    """First gains of channels, then of the places of what these leave (Woo et al. 2018, equation 1)."""

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7) -> None:
        super().__init__()
        self.channel, self.spatial = ChannelAttention(channels, reduction), SpatialAttention(kernel)

    def forward(self, x: Tensor) -> Tensor:
        """To the same shape."""
        x = x * self.channel(x)
        out: Tensor = x * self.spatial(x)
        return out


class CoordinateAttention(nn.Module):
    """Gains of rows times gains of columns, for each channel (Hou et al. 2021, equations 4 to 9).

    Its norm is over the channels of each row and column; published is one over the batch.

    Args:
        channels: of the image.
        reduction: channels over those between, of which there are ``least`` at the least.
        least: see there.
    """

    def __init__(self, channels: int, reduction: int = 32, least: int = 8) -> None:
        super().__init__()
        inside = max(channels // reduction, least)
        self.both = nn.Sequential(nn.Conv2d(channels, inside, 1), ChannelNorm(inside), nn.Hardswish())
        self.rows, self.columns = (nn.Conv2d(inside, channels, 1) for _ in range(2))

    def gains(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows ``[B, C, H, 1]`` and of columns ``[B, C, 1, W]``, in (0, 1)."""
        lines = torch.cat([x.mean(3), x.mean(2)], 2).unsqueeze(3)  # [B, C, H + W, 1]
        rows, columns = self.both(lines).split([x.shape[2], x.shape[3]], 2)
        return torch.sigmoid(self.rows(rows)), torch.sigmoid(self.columns(columns)).transpose(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """To the same shape."""
        rows, columns = self.gains(x)
        return x * rows * columns


class SCSE(nn.Module):
    """``x`` times gains of channels, plus ``x`` times gains of places (Roy et al. 2018, section 2)."""

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, max(channels // reduction, 1))
        self.spatial = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """To the same shape."""
        channels = self.channel(x.mean((2, 3)))[..., None, None]
        out: Tensor = x * (channels + torch.sigmoid(self.spatial(x)))
        return out


class PositionAttention(nn.Module):
    """What other places have, by how alike they are: ``scale V A^T`` (Fu et al. 2019, equations 1 and 2).

    Its memory grows with the square of H W.

    Args:
        channels: of the image.
        reduction: channels over those by which places are compared, of which there is one at the least.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        inside = max(channels // reduction, 1)
        self.query, self.key = (nn.Conv2d(channels, inside, 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(()))

    def affinities(self, x: Tensor) -> Tensor:
        """``[B, HW, HW]``; a row says how much a place takes of each, and adds up to 1."""
        scores = self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2)
        return at_least_single(scores).softmax(2)

    def forward(self, x: Tensor) -> Tensor:
        """What is to be added to ``x``; 0 at first."""
        taken = self.affinities(x).to(x.dtype) @ self.value(x).flatten(2).transpose(1, 2)
        out: Tensor = self.scale * taken.transpose(1, 2).reshape(x.shape)
        return out

    def averages(self, x: Tensor, of: Tensor) -> Tensor:
        """As :meth:`DualAttention.averages`, of what is to be added."""
        shares = self.affinities(x)
        taken = (of.to(shares.dtype) @ shares).to(x.dtype) @ x.flatten(2).transpose(1, 2)  # [B, k, C]
        out: Tensor = self.scale * self.value(taken.transpose(1, 2)[..., None])[..., 0]
        return out


class ChannelAffinity(nn.Module):
    """What other channels have, by how alike they are: ``scale A X`` (Fu et al. 2019, equations 3 and 4).

    Channels are compared by the mean of their products over the image; published is the sum, by which the
    affinities of a larger image are sharper.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def affinities(self, x: Tensor) -> Tensor:
        """``[B, C, C]``; a row says how much a channel takes of each, and adds up to 1."""
        flat = at_least_single(x.flatten(2))
        return (flat @ flat.transpose(1, 2) / flat.shape[2]).softmax(2)

    def forward(self, x: Tensor) -> Tensor:
        """What is to be added to ``x``; 0 at first."""
        out: Tensor = self.scale * (self.affinities(x).to(x.dtype) @ x.flatten(2)).view(x.shape)
        return out

    def averages(self, x: Tensor, of: Tensor) -> Tensor:
        """As :meth:`DualAttention.averages`, of what is to be added."""
        out: Tensor = self.scale * (self.affinities(x).to(x.dtype) @ (x.flatten(2) @ of.T))
        return out


class DualAttention(nn.Module):
    """``x``, and what other places and other channels add to it; ``x`` itself at first."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.position, self.channel = PositionAttention(channels, reduction), ChannelAffinity()

    def forward(self, x: Tensor) -> Tensor:
        """To the same shape."""
        out: Tensor = x + self.position(x) + self.channel(x)
        return out

    def averages(self, x: Tensor, of: Tensor) -> Tensor:
        """Averages of the result over places, for less than all of it.

        Args:
            x: ``[B, C, H, W]``.
            of: ``[k, H W]``, the share of each place in an average; rows add up to 1.

        Returns:
            ``[B, C, k]``.
        """
        out: Tensor = x.flatten(2) @ of.T + self.position.averages(x, of) + self.channel.averages(x, of)
        return out
