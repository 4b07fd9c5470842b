"""What every comparison asks of the two images it is given."""

from __future__ import annotations

from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["check_pair"]


def check_pair(result: Tensor, truth: Tensor) -> None:
    """Refuse, with a GeomoeError, anything but two images ``[C, H, W]`` of one shape."""
    if result.shape != truth.shape:
        raise GeomoeError(f"result {tuple(result.shape)} and truth {tuple(truth.shape)} differ in shape")
    if truth.ndim != 3 or not truth.numel():
        raise GeomoeError(f"an image is [bands, height, width], none of them 0, not {tuple(truth.shape)}")
