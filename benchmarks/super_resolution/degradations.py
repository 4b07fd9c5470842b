"""How the degradations differ: each low-resolution image beside that of ``bicubic``, and seen from above.

    python benchmarks/super_resolution/degradations.py [--image FILE] [--scale 4]

Prints the lines of docs/degradations.md. ``against bicubic`` is the PSNR of the low-resolution image against
the one that ``bicubic`` makes; ``brought back`` that of the image upsampled by bicubic interpolation against
the original: what a model starts from. All bands together, dB; of random ones the mean over 16 draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from geomoe.data.images import read_image, to_unit
from geomoe.data.super_resolution.degradation import (
    DEGRADATIONS,
    Degrader,
    crop_to_multiple,
    get_degradation,
    interpolated,
)
from geomoe.metrics.image import psnr

DRAWS = 16


def made(side: int = 256) -> Tensor:
    """``[3, side, side]``: noise whose amplitude falls as 1 / f, as in photographs, and discs with edges."""
    g = torch.Generator().manual_seed(0)
    f = torch.fft.fftfreq(side)
    distance = (f[:, None] ** 2 + f[None] ** 2).sqrt().clamp(min=1 / side)
    spectrum = torch.fft.fft2(torch.randn(3, side, side, generator=g)) / distance
    texture = torch.fft.ifft2(spectrum).real
    image = 0.45 + 0.12 * texture / texture.std()
    place = torch.arange(side, dtype=torch.float32)
    for _ in range(40):
        y, x, radius = torch.rand(3, generator=g) * torch.tensor([side, side, side / 16])
        inside = (place[:, None] - y) ** 2 + (place[None] - x) ** 2 < radius**2
        image = torch.where(inside, image * 0.3 + torch.rand(3, 1, 1, generator=g) * 0.7, image)
    return (image.clamp(0, 1) * 255).round() / 255


def line(degradation: Degrader, high: Tensor, scale: int) -> tuple[float, float]:
    """PSNR against ``bicubic``, and PSNR of the image brought back."""
    reference = get_degradation("bicubic")(high[None], scale)[0]
    rows = []
    for seed in range(DRAWS):
        low = degradation.drawn(seed)(high[None], scale)
        back = interpolated(low, scale)[0]
        rows.append((psnr(low[0] * 255, reference * 255), psnr(back.clamp(0, 1) * 255, high * 255)))
    against, brought = (sum(column) / DRAWS for column in zip(*rows, strict=True))
    return against, brought


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, help="8-bit RGB; without one, an image made here")
    parser.add_argument("--scale", type=int, default=4)
    args = parser.parse_args()
    image = made() if args.image is None else to_unit(read_image(args.image))
    high = crop_to_multiple(image, args.scale)
    print("| name | against bicubic | brought back |\n|---|---|---|")
    for name, degradation in DEGRADATIONS.items():
        against, brought = line(degradation, high, args.scale)
        print(f"| `{name}` | {'same' if against == float('inf') else f'{against:.2f}'} | {brought:.2f} |")


if __name__ == "__main__":
    main()
