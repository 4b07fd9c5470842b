"""JPEG compression, as a stage of a degradation."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from geomoe.errors import GeomoeError

__all__ = ["Jpeg"]


@dataclass(frozen=True)
class Jpeg:
    """Compressed and read back by Pillow, with its default tables and 4:2:0 chroma.

    Attributes:
        quality: 1 to 95.
    """

    quality: int

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise GeomoeError(f"quality={self.quality}: JPEG's must be between 1 and 95")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``[B, 3, H, W]`` in [0, 1], rounded to 8 bits first. ``generator`` is not drawn from."""
        if x.shape[1] != 3:
            raise GeomoeError(f"JPEG needs 3 bands, not {x.shape[1]}; choose a degradation without it")
        images = (x * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()  # [B, H, W, 3]
        return torch.stack([self._again(image) for image in images]).permute(0, 3, 1, 2).to(x) / 255

    def _again(self, image: Tensor) -> Tensor:
        file = io.BytesIO()
        Image.fromarray(image.numpy()).save(file, "JPEG", quality=self.quality)
        return torch.from_numpy(np.array(Image.open(file)))
