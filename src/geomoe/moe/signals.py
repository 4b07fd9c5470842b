"""Signals: what a router looks at, beside the content itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DepthSignals", "MetadataEncoder", "cyclic", "frequency_bands", "pooled", "with_presence"]


def cyclic(value: Tensor, period: float) -> Tensor:
    """Cosine and sine of a quantity that comes round, ``[..., 2]``: 31 December lies beside 1 January."""
    angle = value * (2 * math.pi / period)
    return torch.stack([angle.cos(), angle.sin()], -1)


class MetadataEncoder(nn.Module):
    """Time, place, sensor: features phi ``[N, D]`` of :class:`geomoe.moe.routing.score.ConditionedScore`.

    A value that is missing (NaN, or -1 for a category) is a null token of zeros, which moves no logit:
    without metadata the router is the unconditioned one. A measure has a second
    feature, 1 where it is known, so that 0 is a value like others.

    Args:
        cycles: quantities that come round and their periods, such as ``{"day_of_year": 365.25, "longitude":
        360}``.
        measures: other quantities with what divides them, such as ``{"latitude": 90, "gsd": 10}``.
        categories: names with the number of values, such as ``{"sensor": 4}``.

    Example:
        >>> encoder = MetadataEncoder({"day_of_year": 365.25}, categories={"sensor": 2})
        >>> encoder({"day_of_year": torch.tensor([0.0, float("nan")]), "sensor": torch.tensor([1, -1])})
        tensor([[1., 0., 0., 1.],
                [0., 0., 0., 0.]])
    """

    def __init__(
        self,
        cycles: Mapping[str, float] | None = None,
        measures: Mapping[str, float] | None = None,
        categories: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.cycles, self.measures = dict(cycles or {}), dict(measures or {})
        self.categories = dict(categories or {})
        self.channels = 2 * len(self.cycles) + 2 * len(self.measures) + sum(self.categories.values())

    def forward(self, metadata: Mapping[str, Tensor]) -> Tensor:
        """``[N, D]`` from values ``[N]`` by name; a name that is absent is missing for all rows.

        Raises:
            ValueError: a name that the encoder does not know, a category out of range, no name at all.
        """
        known = {*self.cycles, *self.measures, *self.categories}
        if not metadata or set(metadata) - known:
            raise ValueError(f"metadata {sorted(metadata)}: expected some of {', '.join(sorted(known))}")
        like = next(iter(metadata.values()))
        for name, value in metadata.items():
            if not isinstance(value, Tensor) or value.shape != (len(like),):
                raise ValueError(f"{name}: expected a tensor of one value a row, [{len(like)}]")
        none = torch.full((len(like),), float("nan"), device=like.device)
        parts = [cyclic(metadata.get(name, none).float(), period) for name, period in self.cycles.items()]
        for name, by in self.measures.items():
            value = metadata.get(name, none).float()
            parts.append(torch.stack([value / by, torch.where(value.isnan(), value, 1.0)], -1))
        parts = [torch.nan_to_num(part, nan=0.0) for part in parts]
        for name, number in self.categories.items():
            value = metadata[name].long() if name in metadata else torch.full_like(none, -1).long()
            if ((value >= number) | (value < -1)).any():
                raise ValueError(f"{name}: expected 0 to {number - 1}, or -1 where it is not known")
            parts.append(F.one_hot(value + 1, number + 1)[:, 1:].float())
        return torch.cat(parts, -1)


def pooled(x: Tensor) -> Tensor:
    """Mean and standard deviation of ``[B, C, H, W]`` over space, ``[B, 2C]``: a signal for whole samples."""
    spread, mean = torch.var_mean(x, (2, 3), correction=0)
    return torch.cat([mean, (spread + 1e-12).sqrt()], 1)


def frequency_bands(x: Tensor, bands: int = 3) -> Tensor:
    """``[B, bands, C, H, W]``: the image in octaves, finest first; they sum to the image.

    Each octave is what a binomial blur, twice as wide as the last, takes away (Burt and Adelson 1983,
    without subsampling).
    """
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=x.dtype, device=x.device) / 16
    channels, found, rest = x.shape[1], [], x
    for octave in range(bands - 1):
        step = 2**octave
        blurred = rest
        for shape, pad in (
            ((1, 1, 1, 5), (2 * step, 2 * step, 0, 0)),
            ((1, 1, 5, 1), (0, 0, 2 * step, 2 * step)),
        ):
            kernel = taps.view(shape).expand(channels, -1, -1, -1)
            blurred = F.conv2d(F.pad(blurred, pad, "replicate"), kernel, groups=channels, dilation=step)
        found.append(rest - blurred)
        rest = blurred
    return torch.stack([*found, rest], 1)


class DepthSignals(nn.Module):
    """Features from several depths, rows ``[N, C_i]``, brought to one width and added: ``[N, width]``."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Linear(c, width) for c in channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        brought = [level(x) for level, x in zip(self.levels, features, strict=True)]
        return torch.stack(brought).sum(0)


def with_presence(x: Tensor, present: Tensor) -> Tensor:
    """Signals ``[N, M, C]`` of modalities and which are there, ``[N, M]`` bool: ``[N, M * (C + 1)]``.

    What is missing is 0, whatever stood there.
    """
    there = present[..., None]
    return torch.cat([x.masked_fill(~there, 0), there.to(x.dtype)], -1).flatten(1)
