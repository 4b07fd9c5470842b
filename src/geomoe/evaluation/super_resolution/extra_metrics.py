"""Metrics beside PSNR and SSIM, of one image and over many."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.metrics.consistency import MakeSmall, low_resolution_consistency
from geomoe.metrics.protocol import Protocol
from geomoe.metrics.spatial import scc
from geomoe.metrics.spectral import ergas, sam

__all__ = ["METRICS", "check_metrics", "score_extra"]

FURTHER = ("ergas", "sam", "scc", "consistency")
USUAL = ("psnr", "ssim")
"""Metrics of every protocol."""
METRICS = (*USUAL, *FURTHER)
"""All metrics of an evaluation."""


def check_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that are not PSNR or SSIM, in the order of :data:`METRICS`.

    Raises:
        GeomoeError: an unknown name.
    """
    for name in names:
        if name not in METRICS:
            raise GeomoeError(f"no metric is called {name!r}; there are: {', '.join(METRICS)}")
    return tuple(name for name in FURTHER if name in names)


def score_extra(
    names: Sequence[str],
    result: Tensor,
    truth: Tensor,
    low: Tensor,
    scale: int,
    rules: Protocol,
    make_small: MakeSmall | None,
) -> dict[str, float]:
    """The metrics ``names`` of one image, but for those that are undefined of it.

    ERGAS, SAM and SCC are of all bands, in 8 bits and cut as ``rules`` say. Consistency is the PSNR of the
    whole, unrounded result downsampled, at most the cap of ``rules``.

    Args:
        names: from :func:`check_metrics`.
        result: ``[C, H, W]`` in [0, 1].
        truth: like ``result``.
        low: the input, ``[C, H / scale, W / scale]`` in [0, 1].
        scale: of the super-resolution.
        rules: the protocol.
        make_small: what made ``low``, with the same rounding; None where a sensor measured it, which
            consistency cannot be told of.
    """
    a, b = rules.compared(result, truth, scale)

    def consistency() -> float:
        if make_small is None:
            return math.nan
        return min(low_resolution_consistency(result, low, scale, make_small).psnr, rules.psnr_cap)

    found = {
        "ergas": lambda: ergas(a, b, scale),
        "sam": lambda: sam(a, b),
        "scc": lambda: scc(a, b),
        "consistency": consistency,
    }
    scores = {name: found[name]() for name in names}
    return {name: value for name, value in scores.items() if not math.isnan(value)}
