"""What samples of a kind look like to a model, one by one, to tell when new ones do not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

__all__ = ["DriftReference"]

_FIELDS = ("names", "values", "side", "data")
_DIGITS = 5
_MOST = 10_000
"""Statistics that a card may hold of a sample."""


@dataclass(frozen=True, eq=False)
class DriftReference:
    """Statistics of samples that the weights were not trained on, of the kind that they are for.

    Attributes:
        names: of the statistics, such as ``band 1 mean`` and ``layer 1 expert 3``.
        values: ``[N, S]`` float64, a row for each sample.
        side: pixels of the squares in the middle of images that they are of; None where they are of whole
            images, brought to one size.
        data: what the samples are, in words.
    """

    names: tuple[str, ...]
    values: Tensor
    side: int | None
    data: str

    @classmethod
    def from_card(cls, held: Mapping[str, Any]) -> Self:
        """From what :meth:`for_card` gave; raises ValueError for anything else."""
        if set(held) != set(_FIELDS):
            raise ValueError(f"its drift reference holds {', '.join(held)}; expected {', '.join(_FIELDS)}")
        try:
            values = torch.tensor(held["values"], dtype=torch.float64)
            names = tuple(str(name) for name in held["names"])
            side = None if held["side"] is None else int(held["side"])
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise ValueError(f"its drift reference is damaged: {error}") from error
        if values.ndim != 2 or values.shape[1] != len(names) or not values.numel() or len(names) > _MOST:
            raise ValueError("its drift reference has names and values of other sizes")
        if not values.isfinite().all() or (side is not None and side < 1):
            raise ValueError("its drift reference holds values that cannot be")
        return cls(names, values, side, str(held["data"]))

    def for_card(self) -> dict[str, Any]:
        """JSON values."""
        rows = [[float(f"{value:.{_DIGITS}g}") for value in row] for row in self.values.tolist()]
        return {"names": list(self.names), "values": rows, "side": self.side, "data": self.data}

    def digest(self) -> str:
        """SHA-256, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.for_card(), sort_keys=True).encode()).hexdigest()
