"""Versions of an image that scenes have and sets of photographs do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from geomoe.errors import GeomoeError, expect

__all__ = ["VARIANTS", "check_variants", "vary"]

Variant = Callable[[Tensor, np.random.Generator], Tensor]
"""``[C, H, W]`` in [0, 1] to the same."""


def _equal(x: Tensor, rng: np.random.Generator) -> Tensor:
    return x[int(rng.integers(len(x)))].expand_as(x)


def _permuted(x: Tensor, rng: np.random.Generator) -> Tensor:
    return x[torch.from_numpy(rng.permutation(len(x)))]


def _stretched(x: Tensor, rng: np.random.Generator) -> Tensor:
    low, high = (float(value) for value in np.quantile(x.numpy(), (0.01, 0.99)))
    return ((x - low) / max(high - low, 0.05)).clamp(0, 1)


def _dark(x: Tensor, rng: np.random.Generator) -> Tensor:
    return x * float(rng.uniform(0.1, 0.6))


def _bright(x: Tensor, rng: np.random.Generator) -> Tensor:
    return 1 - (1 - x) * float(rng.uniform(0.1, 0.6))


def _faint(x: Tensor, rng: np.random.Generator) -> Tensor:
    middle, factor = x.mean((1, 2), keepdim=True), float(rng.uniform(0.05, 0.5))
    return middle + (x - middle) * factor


VARIANTS: dict[str, Variant] = {
    "equal": _equal,
    "permuted": _permuted,
    "stretched": _stretched,
    "dark": _dark,
    "bright": _bright,
    "faint": _faint,
}
"""By name: one band in the place of all, bands in another order, values stretched to their percentiles,
darkened, brightened, or of little contrast."""


def check_variants(shares: Mapping[str, float]) -> None:
    """Raises GeomoeError for an unknown name, a share below 0, or a sum above 1."""
    for name, share in shares.items():
        if name not in VARIANTS:
            raise GeomoeError(f"no variant is called {name!r}; there are: {', '.join(VARIANTS)}")
        expect(share >= 0, f"variants.{name}", share, "a share, 0 or more")
    expect(sum(shares.values()) <= 1 + 1e-9, "variants", dict(shares), "shares that sum to 1 at most")


def vary(image: Tensor, shares: Mapping[str, float], rng: np.random.Generator) -> Tensor:
    """One of the variants of ``image``, ``[C, H, W]``, each in its share of cases; else the image itself.

    uint8 stays uint8. Nothing is drawn from ``rng`` where there are no variants.
    """
    if not shares:
        return image
    draw = rng.random()
    for name, share in shares.items():
        draw -= share
        if draw < 0:
            if image.dtype != torch.uint8:
                return VARIANTS[name](image, rng)
            varied = VARIANTS[name](image.float() / 255, rng)
            return (varied * 255).round().clamp(0, 255).to(torch.uint8)
    return image
