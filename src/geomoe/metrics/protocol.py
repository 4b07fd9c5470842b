"""Protocols: what exactly is compared. A PSNR without one can be off by whole decibels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from geomoe.errors import GeomoeError
from geomoe.metrics.image import psnr, ssim, to_luma
from geomoe.metrics.shapes import check_pair

__all__ = ["PROTOCOLS", "Protocol", "get_protocol"]


@dataclass(frozen=True)
class Protocol:
    """A named way to compare a result with the truth.

    Both are brought to 8 bits first, and clipped. Metrics are means over images of the per-image value.

    Attributes:
        name: as in cards and on the command line.
        channels: ``luma`` (Y of BT.601, 16-235) or ``rgb`` (all channels together).
        border: ``scale`` cuts that many pixels from every side, ``none`` cuts nothing.
        to_8_bits: whether values are rounded or truncated to whole numbers.
        ssim_window: side of SSIM's Gaussian window; whole windows only.
        ssim_sigma: of that Gaussian, pixels.
        psnr_cap: PSNR of one image counts at most this, dB, so that an image that is drawn exactly does not
            make the mean infinite.
        metrics: that :meth:`scores` gives.
        ranks: the one of them by which models are compared.
        base: what needs no learning, with which they are compared.
    """

    name: str
    channels: Literal["luma", "rgb"]
    border: Literal["scale", "none"]
    to_8_bits: Literal["round", "truncate"] = "round"
    ssim_window: int = 11
    ssim_sigma: float = 1.5
    psnr_cap: float = 100.0
    metrics: tuple[str, ...] = ("psnr", "ssim")
    ranks: str = "psnr"
    base: str = "bicubic"

    def check_bands(self, bands: int) -> None:
        """Refuse images of ``bands`` bands if the protocol cannot compare them, with a GeomoeError."""
        if self.channels == "luma" and bands != 3:
            raise GeomoeError(
                f"protocol {self.name} compares luma, which needs 3 bands, not {bands}; use hsenet"
            )

    def compared(self, result: Tensor, truth: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """Both images as they are compared, in all bands: ``[C, H', W']`` whole numbers in 0-255, border cut.

        Raises:
            GeomoeError: shapes that differ, bands that the protocol cannot use, an image that is too small.
        """
        check_pair(result, truth)
        self.check_bands(truth.shape[0])
        cut = scale if self.border == "scale" else 0
        if min(truth.shape[1:]) < self.ssim_window + 2 * cut:
            raise GeomoeError(f"an image of {truth.shape[2]}x{truth.shape[1]} pixels is too small to score")
        window = slice(cut, -cut or None)
        a, b = (self._whole(t * 255).clamp(0, 255)[:, window, window] for t in (result, truth))
        return a, b

    def _whole(self, values: Tensor) -> Tensor:
        if self.to_8_bits == "round":
            return values.round()
        # What was a whole number before it was divided by 255 may now lie a rounding error below it.
        return (values + 1e-3).floor()

    def score(self, result: Tensor, truth: Tensor, scale: int) -> tuple[float, float]:
        """PSNR in dB and SSIM of one image, ``[3, H, W]`` in [0, 1]. ``rgb`` takes any bands.

        Raises:
            GeomoeError: shapes that differ, bands that the protocol cannot use, an image that is too small.
        """
        a, b = self.compared(result, truth, scale)
        if self.channels == "luma":
            a, b = to_luma(a), to_luma(b)
        structure = ssim(a, b, window=self.ssim_window, sigma=self.ssim_sigma)
        return min(psnr(a, b), self.psnr_cap), structure

    def scores(self, result: Tensor, truth: Tensor, scale: int) -> dict[str, float]:
        """The same by name."""
        return dict(zip(self.metrics, self.score(result, truth, scale), strict=True))


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("mfg_hmoe", "luma", "scale"),
        Protocol("ttst", "luma", "none", "truncate"),
        Protocol("hsenet", "rgb", "none"),
    )
}
"""All protocols by name; ``mfg_hmoe`` is the default."""


def get_protocol(name: str) -> Protocol:
    """The protocol called ``name``; raises GeomoeError for an unknown one."""
    if name not in PROTOCOLS:
        raise GeomoeError(f"no protocol is called {name!r}; there are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
