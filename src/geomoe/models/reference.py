"""What a model's router saw in training, to tell what it has not seen."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from geomoe.moe.routing.fallback import mahalanobis, usual

__all__ = ["RoutingReference"]

_DIGITS = 7
_FIELDS = ("mean", "precision", "threshold", "quantile", "data")


@dataclass(frozen=True, eq=False)
class RoutingReference:
    """What the last router of a model is shown, over its training data.

    What is compared is the Mahalanobis distance of the router's input (after Lee et al. 2018), as in
    :class:`geomoe.moe.Fallback`: far from its training a router is most often certain, so its probabilities
    would not do.

    Attributes:
        mean: ``[C]`` float64.
        precision: ``[C, C]`` float64.
        threshold: squared distance beyond which a row is taken for unlike training.
        quantile: the share of rows of ``data`` that the threshold lets pass, 0 to 1.
        data: what the threshold was found on, in words.
    """

    mean: Tensor
    precision: Tensor
    threshold: float
    quantile: float
    data: str

    @classmethod
    def learn(cls, seen: Tensor, held_out: Tensor, quantile: float, data: str) -> Self:
        """From rows ``[N, C]`` of training, and others that the threshold is found on."""
        mean, precision = (_rounded(value) for value in usual(seen.double()))
        distances = mahalanobis(held_out.double(), mean, precision).sort().values
        place = min(int(quantile * len(distances)), len(distances) - 1)
        threshold = float(f"{float(distances[place]):.{_DIGITS}g}")
        return cls(mean, precision, threshold, quantile, data)

    @classmethod
    def from_card(cls, held: Mapping[str, Any]) -> Self:
        """From what :meth:`for_card` gave; raises ValueError for anything else."""
        if set(held) != set(_FIELDS):
            raise ValueError(f"its routing reference holds {', '.join(held)}; expected {', '.join(_FIELDS)}")
        try:
            mean = torch.tensor(held["mean"], dtype=torch.float64)
            precision = torch.tensor(held["precision"], dtype=torch.float64)
            threshold, quantile = float(held["threshold"]), float(held["quantile"])
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise ValueError(f"its routing reference is damaged: {error}") from error
        if mean.ndim != 1 or precision.shape != (len(mean), len(mean)) or not len(mean):
            raise ValueError("its routing reference has a mean and a precision of other sizes")
        if not (mean.isfinite().all() and precision.isfinite().all()):
            raise ValueError("its routing reference holds values that are not finite")
        if not (0 < threshold < math.inf and 0 < quantile < 1):
            raise ValueError(f"its routing reference has threshold {threshold:g} at quantile {quantile:g}")
        return cls(mean, precision, threshold, quantile, str(held["data"]))

    def for_card(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "mean": self.mean.tolist(),
            "precision": self.precision.tolist(),
            "threshold": self.threshold,
            "quantile": self.quantile,
            "data": self.data,
        }

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all that decides."""
        return hashlib.sha256(json.dumps(self.for_card(), sort_keys=True).encode()).hexdigest()

    def ood_score(self, rows: Tensor) -> Tensor:
        """Out-of-distribution scores ``[N]`` float64 of rows ``[N, C]``: distances over the threshold's."""
        squared = mahalanobis(rows.double().cpu(), self.mean, self.precision)
        return (squared.clamp_min(0) / self.threshold).sqrt()


def _rounded(value: Tensor) -> Tensor:
    """To the digits that the card keeps, so that what is learned and what is read back are the same."""
    digits = [float(f"{number:.{_DIGITS}g}") for number in value.flatten().tolist()]
    return torch.tensor(digits, dtype=torch.float64).reshape(value.shape)
