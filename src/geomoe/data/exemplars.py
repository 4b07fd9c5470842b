"""Exemplars: the few samples of a class that are kept when its session is over."""

from __future__ import annotations

import torch
from torch import Tensor

from geomoe.data.images import to_unit

__all__ = ["looks", "nearest_to_mean"]


def looks(images: Tensor) -> Tensor:
    """``[N, 4 C]`` of images ``[N, C, H, W]``, uint8 or float in about [0, 1]: colours and texture.

    Of each band the mean, the deviation, and the mean step between neighbours in either direction. No
    training changes them, so that the same exemplars are found whenever they are asked for.
    """
    x = to_unit(images)
    steps = [x.diff(dim=dim).abs().flatten(2).sum(2) / x[0, 0].numel() for dim in (2, 3)]
    return torch.cat([x.mean((2, 3)), x.flatten(2).std(2, correction=0), *steps], 1)


def nearest_to_mean(features: Tensor, groups: Tensor, each: int) -> Tensor:
    """Places of the ``each`` rows of every group nearest to its mean, ``[groups x each]``, ascending.

    Distances are Euclidean, of features that have been brought to one deviation within the group, so that no
    group matters to another.

    Args:
        features: ``[N, D]``.
        groups: ``[N]`` int64.
        each: rows of every group.

    Raises:
        ValueError: a group with fewer rows.
    """
    kept = []
    for group in groups.unique():
        [rows] = (groups == group).nonzero(as_tuple=True)
        if len(rows) < each:
            raise ValueError(f"a group has {len(rows)} rows, of which {each} were to be kept")
        apart = features[rows] - features[rows].mean(0)
        distance = (apart / apart.std(0, correction=0).clamp_min(1e-12)).norm(dim=1)
        kept.append(rows[distance.argsort(stable=True)[:each]])
    return torch.cat(kept).sort().values
