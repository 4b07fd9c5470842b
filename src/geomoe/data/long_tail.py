"""Data sets made long-tailed: few classes have many samples, and many have few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geomoe.errors import expect

__all__ = ["balanced", "long_tail"]


def long_tail(labels: Sequence[str], least: float, seed: int = 0) -> list[int]:
    """Places of the samples that are kept, in their order, where classes fall off exponentially.

    Class r of K, in an order of chance of their sorted names, keeps ``least^(r / (K - 1))`` of its samples
    (Cao et al. 2019), drawn by chance, at least one: the first all, the last the share ``least``.

    Args:
        labels: of all samples.
        least: share that the last class keeps, above 0 to 1, at which all are kept.
        seed: of order and draw.

    Raises:
        GeomoeError: another share.
    """
    expect(0 < least <= 1, "imbalance", least, "a share above 0, at most 1")
    rng = np.random.default_rng(seed)
    names, of = np.unique(np.asarray(labels), return_inverse=True)
    kept: list[int] = []
    for rank, name in enumerate(rng.permutation(len(names))):
        mine = np.flatnonzero(of == name)
        number = max(round(len(mine) * least ** (rank / max(len(names) - 1, 1))), 1)
        kept += rng.permutation(mine)[:number].tolist()
    return sorted(kept)


def balanced(labels: NDArray[np.integer], rng: np.random.Generator) -> int:
    """Place of a sample: each class that there is has the same chance, and each of its samples."""
    drawn = rng.choice(np.unique(labels))
    return int(rng.choice(np.flatnonzero(labels == drawn)))
