"""Protocols: what exactly is compared. A PSNR without one can be off by whole decibels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.metrics.image import psnr, ssim, to_luma

__all__ = ["PROTOCOLS", "Protocol", "get_protocol"]


@dataclass(frozen=True)
class Protocol:
    """A named way to compare a result with the truth.

    Both are rounded and clipped to 8 bits first. SSIM has an 11x11 Gaussian window of sigma 1.5,
    whole windows only. Metrics are means over images of the per-image value.

    Attributes:
        name: as in cards and on the command line.
        channels: ``luma`` (Y of BT.601, 16-235) or ``rgb`` (all channels together).
        border: ``scale`` cuts that many pixels from every side, ``none`` cuts nothing.
    """

    name: str
    channels: Literal["luma", "rgb"]
    border: Literal["scale", "none"]

    def score(self, result: Tensor, truth: Tensor, scale: int) -> tuple[float, float]:
        """PSNR in dB and SSIM of one image, ``[3, H, W]`` in [0, 1]. ``rgb`` takes any bands."""
        if result.shape != truth.shape:
            raise GeomoeError(f"result {tuple(result.shape)} and truth {tuple(truth.shape)} differ in shape")
        if self.channels == "luma" and truth.shape[0] != 3:
            raise GeomoeError(
                f"protocol {self.name} compares luma, which wants 3 bands, not {truth.shape[0]}; use hsenet"
            )
        a, b = ((t * 255).round().clamp(0, 255) for t in (result, truth))
        if self.channels == "luma":
            a, b = to_luma(a), to_luma(b)
        cut = scale if self.border == "scale" else 0
        window = slice(cut, -cut or None)
        a, b = a[:, window, window], b[:, window, window]
        return psnr(a, b), ssim(a, b)


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("mfg_hmoe", "luma", "scale"),
        Protocol("ttst", "luma", "none"),
        Protocol("hsenet", "rgb", "none"),
    )
}
"""All protocols by name; ``mfg_hmoe`` is the default."""


def get_protocol(name: str) -> Protocol:
    """The protocol called ``name``; raises GeomoeError for an unknown one."""
    if name not in PROTOCOLS:
        raise GeomoeError(f"no protocol is called {name!r}; there are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
