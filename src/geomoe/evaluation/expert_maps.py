"""Expert maps of one image: which expert counts most for each pixel, and for how many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ExpertMap"]


@dataclass(frozen=True)
class ExpertMap:
    """What one layer of a model decided.

    Attributes:
        layer: its number among those that route, from 1.
        layers: how many route.
        unit: what was decided on; ``tile`` and ``image`` are one choice for all pixels of one.
        group_sizes: experts in each group.
        kernel_sizes: of each group; None where the model has none to tell apart.
        experts: ``[h, w]`` int64 on the low-resolution grid, the expert that counts most, 0 to E - 1 over all
            groups; -1 where none does.
    """

    layer: int
    layers: int
    unit: Literal["pixel", "tile", "image"]
    group_sizes: tuple[int, ...]
    kernel_sizes: tuple[int, ...] | None
    experts: NDArray[np.int64]

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of pixels of every expert, 0 to 1."""
        counts = np.bincount(self.experts[self.experts >= 0], minlength=sum(self.group_sizes))
        return tuple(float(count) / self.experts.size for count in counts)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every expert: its group, by kernel where there is one, and its place in it from 1."""
        if len(self.group_sizes) == 1:
            heads = [""]
        elif self.kernel_sizes is None or len(set(self.kernel_sizes)) < len(self.kernel_sizes):
            heads = [f"group {i} " for i in range(1, len(self.group_sizes) + 1)]
        else:
            heads = [f"{k}x{k} " for k in self.kernel_sizes]
        return tuple(
            f"{head}expert {place}"
            for head, size in zip(heads, self.group_sizes, strict=True)
            for place in range(1, size + 1)
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the map itself."""
        return {
            "layer": self.layer,
            "layers": self.layers,
            "unit": self.unit,
            "group_sizes": list(self.group_sizes),
            "kernel_sizes": None if self.kernel_sizes is None else list(self.kernel_sizes),
            "shares": dict(zip(self.names, self.shares, strict=True)),
        }
