"""What is known of an image before it is looked at: its sensor, ground sampling distance, blur and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["KERNELS", "SENSORS", "Informed", "Known"]

Kernel = Literal["bilinear", "bicubic", "sensor"]
KERNELS: tuple[Kernel, ...] = ("bilinear", "bicubic", "sensor")
"""How pixels came about: by an antialiased interpolation, or by a sensor's point spread function."""
SENSORS = ("sentinel-2", "landsat", "aerial")
"""Those that have a place of their own; others are told by their ground sampling distance."""


@dataclass(frozen=True)
class Known:
    """Facts of one image, each ``None`` where it is not known.

    Attributes:
        sensor: one of :data:`SENSORS`; another name is as good as none.
        gsd: ground sampling distance of the sensor's images, metres.
        kernel: one of :data:`KERNELS`.
        mtf: of the sensor at the Nyquist frequency of the image, 0 to 1.
        noise: standard deviation of the noise, in units of [0, 1].
    """

    sensor: str | None = None
    gsd: float | None = None
    kernel: Kernel | None = None
    mtf: float | None = None
    noise: float | None = None

    WIDTH = len(SENSORS) + len(KERNELS) + 2 * 3
    """Numbers that :meth:`encoded` gives."""

    def encoded(self) -> list[float]:
        """``WIDTH`` numbers of about -1 to 3, all 0 of what is not known.

        Names have a place each; of a quantity there are its value and that it is known.
        """
        named = [float(self.sensor == name) for name in SENSORS]
        named += [float(self.kernel == name) for name in KERNELS]
        quantities = (
            None if self.gsd is None else math.log10(self.gsd) / 2,
            None if self.mtf is None else (self.mtf - 0.2) / 0.15,
            None if self.noise is None else min(self.noise, 0.1) / 0.02,
        )
        pairs = ((0.0, 0.0) if value is None else (value, 1.0) for value in quantities)
        return [*named, *(number for pair in pairs for number in pair)]

    def forgetting(self, rng: np.random.Generator, share: float) -> Known:
        """With each fact dropped with probability ``share``, so that what is trained does without."""
        lost: dict[str, None] = {field.name: None for field in fields(self) if rng.random() < share}
        return replace(self, **lost)

    @staticmethod
    def batch(known: Sequence[Known]) -> Tensor:
        """``[B, WIDTH]`` float32 of B images."""
        return torch.tensor([one.encoded() for one in known], dtype=torch.float32)


class Informed(nn.Module):
    """Adds what is known of an image to what routers see of each of its pixels.

    It starts at 0: a trained model that is given one continues from where it was, and what is not known adds
    nothing.

    Args:
        width: channels that the routers see.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.facts = nn.Linear(Known.WIDTH, width, bias=False)
        nn.init.zeros_(self.facts.weight)

    def forward(self, signals: Tensor, known: Tensor | None) -> Tensor:
        """Signals ``[B, R, H, W]`` and facts ``[B, WIDTH]``, or none of any image, to ``[B, R, H, W]``."""
        if known is None:
            return signals
        facts: Tensor = self.facts(known.to(signals.dtype))
        return signals + facts[:, :, None, None]
