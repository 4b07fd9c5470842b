"""What can be wrong with an image: corruptions, what is missing, and what does not lie on each other."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from geomoe.data.other_sensor import as_other_sensor
from geomoe.layers.sensors import sensor_slices

__all__ = ["Damage", "Spread", "blurred", "compressed", "damages", "moved"]

_MOST_BANDS = 8
"""Of more bands, so many groups of neighbours are taken away in turn."""


@dataclass(frozen=True)
class Spread:
    """Of images, band by band: mean, standard deviation, least and greatest value; ``[C, 1, 1]`` each."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, images: Iterator[Tensor]) -> Spread:
        """Of batches ``[B, C, H, W]``, each looked at once."""
        count, one, two = 0, torch.zeros(()), torch.zeros(())
        low = high = None
        for x in images:
            x = x.double()
            count += x.numel() // x.shape[1]
            one, two = one + x.sum((0, 2, 3)), two + (x**2).sum((0, 2, 3))
            least, most = x.amin((0, 2, 3)), x.amax((0, 2, 3))
            low = least if low is None else torch.minimum(low, least)
            high = most if high is None else torch.maximum(high, most)
        assert low is not None
        assert high is not None
        mean = one / count
        std = (two / count - mean**2).clamp_min(0).sqrt()
        return cls(*(v.float()[:, None, None] for v in (mean, std, low, high)))


@dataclass(frozen=True)
class Damage:
    """One way to spoil images.

    Attributes:
        kind: such as ``noise``.
        strength: in words, such as ``0.25 of the standard deviation``.
        apply: of ``[B, C, H, W]`` and the number of the batch, from which what is random is drawn.
        light: whether it is a change of the light alone, which an image that a model gives has to show too.
        lost: sensor that it takes away, of which a model that knows what is missing is told.
    """

    kind: str
    strength: str
    apply: Callable[[Tensor, int], Tensor]
    light: bool = False
    lost: str | None = None


def damages(spread: Spread, seed: int, sensors: Mapping[str, int] = MappingProxyType({})) -> list[Damage]:
    """All that is tried on images of this spread: each kind from weak to strong.

    Args:
        spread: of the images.
        seed: of what is random.
        sensors: that measured the bands, by name, with the number of each one's; empty where they are of one.
    """
    bands = len(spread.mean)
    found = [Damage("noise", f"{s:g} std", partial(_noisy, spread, s, seed)) for s in (0.1, 0.25, 0.5)]
    found += [Damage("blur", f"{s:g} px", _always(blurred, s)) for s in (0.5, 1.0, 2.0)]
    found += [Damage("JPEG", f"quality {q}", _always(compressed, q, spread)) for q in (80, 50, 20)]
    found += [
        Damage("brightness", f"+{s:g} std", _always(_brighter, spread, s), True) for s in (0.25, 0.5, 1.0)
    ]
    found += [Damage("contrast", f"x {s:g}", _always(_flatter, spread, s), True) for s in (0.75, 0.5, 0.25)]
    if bands > 1:
        groups = torch.arange(bands).tensor_split(min(bands, _MOST_BANDS))
        found += [Damage("missing band", _called(g), _always(_without, g, spread)) for g in groups]
        found += [Damage("misregistration", f"{s:g} px", _always(_apart, s)) for s in (0.25, 0.5, 1.0)]
    if bands == 3 and not sensors:
        found.append(Damage("other sensor", "bands mixed, x 0.85", _always(as_other_sensor), True))
    bands_of = {name: torch.arange(bands)[place] for name, place in sensor_slices(sensors).items()}
    found += [
        Damage("missing sensor", name, _always(_without, of, spread), lost=name)
        for name, of in bands_of.items()
    ]
    found += [
        Damage("sensors apart", f"{name}, {s:g} px", _always(_one_moved, of, s))
        for name, of in bands_of.items()
        for s in (0.25, 0.5, 1.0)
    ]
    return found


def _always(change: Callable[..., Tensor], *how: object) -> Callable[[Tensor, int], Tensor]:
    """A change in which nothing is random."""
    return lambda x, number: change(x, *how)


def _noisy(spread: Spread, times: float, seed: int, x: Tensor, number: int) -> Tensor:
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + number))
    return x + times * spread.std * drawn.to(x)


def _brighter(x: Tensor, spread: Spread, times: float) -> Tensor:
    return x + times * spread.std


def _flatter(x: Tensor, spread: Spread, times: float) -> Tensor:
    return spread.mean + times * (x - spread.mean)


def _called(group: Tensor) -> str:
    first, last = int(group[0]) + 1, int(group[-1]) + 1
    return f"band {first}" if first == last else f"bands {first}-{last}"


def blurred(x: Tensor, sigma: float) -> Tensor:
    """``[B, C, H, W]`` through a Gaussian of ``sigma`` pixels; borders are repeated."""
    reach = min(max(1, round(3 * sigma)), min(x.shape[-2:]) - 1)
    at = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = (-0.5 * (at / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel, groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), kernel.mT, groups=x.shape[1])


def compressed(x: Tensor, quality: int, spread: Spread) -> Tensor:
    """Through JPEG at 8 bits, least to greatest value; three bands as colours, others one by one."""
    span = (spread.high - spread.low).clamp_min(1e-12)
    bytes_of = ((x - spread.low) / span * 255).round().clamp(0, 255).to(torch.uint8)
    out = torch.empty_like(x)
    for i, image in enumerate(bytes_of):
        if len(image) == 3:
            out[i] = torch.from_numpy(_jpeg(image.permute(1, 2, 0).numpy(), quality)).permute(2, 0, 1)
        else:
            for band, values in enumerate(image):
                out[i, band] = torch.from_numpy(_jpeg(values.numpy(), quality))
    return out / 255 * span + spread.low


def _jpeg(values: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file), dtype=np.float32)


def _without(x: Tensor, group: Tensor, spread: Spread) -> Tensor:
    filled = x.clone()
    filled[:, group] = spread.mean[group].to(x)
    return filled


def moved(x: Tensor, pixels: float) -> Tensor:
    """``[B, C, H, W]`` moved down and right by so many pixels, bilinearly; borders are repeated."""
    height, width = x.shape[-2:]
    y, x_at = ((torch.arange(n, dtype=x.dtype) - pixels + 0.5) * 2 / n - 1 for n in (height, width))
    grid = torch.stack(torch.meshgrid(x_at, y, indexing="xy"), -1).expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _apart(x: Tensor, pixels: float) -> Tensor:
    """The second half of the bands moved against the first."""
    return _one_moved(x, torch.arange(x.shape[1] - x.shape[1] // 2, x.shape[1]), pixels)


def _one_moved(x: Tensor, group: Tensor, pixels: float) -> Tensor:
    """Some bands moved, and the others still."""
    out = x.clone()
    out[:, group] = moved(x[:, group], pixels)
    return out
