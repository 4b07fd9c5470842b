"""Fields that are made: heads of cabbage in rows, seen from a few metres above, weeds and shadows among them.

Rows are 22 pixels apart, along an angle by chance; a head lies every 20 pixels, three more or less, a disc
that is shaded like six leaves. Weeds are discs of the same green and shading, with radii of 1 to 6 pixels, as
many as heads but anywhere, and count as soil: a plant is a head by its size and row, not its colour.
The shadow of something beside the field darkens a half of it. In ``train`` and ``test`` heads have radii of 4
to 9 pixels; in ``late``, another stage of growth, of 9 to 14.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geomoe.files import new_folder

__all__ = ["FIELDS", "STAGES", "field_heads", "field_sample", "heads_of", "make_fields"]

FIELDS = {"train": 400, "test": 100, "late": 100}
"""The folders, each with the number of its images."""
STAGES = {"train": (4.0, 9.0), "test": (4.0, 9.0), "late": (9.0, 14.0)}
"""Radii of heads in each, pixels."""

_SIDE, _ROWS, _HEADS, _JITTER = 128, 22.0, 20.0, 3.0
_GREEN, _GREENS, _SOIL, _ROUGH = (0.25, 0.5, 0.2), 0.08, (0.45, 0.35, 0.25), 0.1
_WEEDS, _WEED_RADII, _SHADOW = 1.0, (1.0, 6.0), 0.6
_LEAVES, _DEPTH = 6, 0.25


def field_sample(
    rng: np.random.Generator, radii: tuple[float, float] = STAGES["train"], side: int = _SIDE
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image ``[side, side, 3]`` and its mask ``[side, side]``: 1 where there is a head, else 0.

    Arguments as of :func:`field_heads`.
    """
    image, numbers = field_heads(rng, radii, side)
    return image, (numbers > 0).astype(np.uint8)


def field_heads(
    rng: np.random.Generator, radii: tuple[float, float] = STAGES["train"], side: int = _SIDE
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """An image, as of :func:`field_sample`, and the number of the head at each pixel, from 1; 0 of none.

    Args:
        rng: draws everything.
        radii: of heads, pixels, from the least to the most.
        side: pixels.
    """
    image = np.array(_SOIL) + _ROUGH * _pink(rng, side)[..., None]
    numbers = np.zeros((side, side), np.uint16)
    heads = _places(rng, side)
    for y, x in rng.uniform(0, side, (round(_WEEDS * len(heads)), 2)):
        _disc(image, y, x, rng.uniform(*_WEED_RADII), rng)
    for number, (y, x) in enumerate(heads, 1):
        numbers[_disc(image, y, x, rng.uniform(*radii), rng)] = number
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-side / 4, side / 4)
    rows, columns = np.mgrid[:side, :side] - side / 2
    image[rows * np.sin(angle) + columns * np.cos(angle) > offset] *= _SHADOW
    return np.rint(255 * image.clip(0, 1)).astype(np.uint8), numbers


def _pink(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Noise ``[side, side]`` whose amplitude falls as 1 / frequency, of deviation 1."""
    across, down = np.fft.fftfreq(side)[None], np.fft.fftfreq(side)[:, None]
    frequency = np.hypot(across, down)
    frequency[0, 0] = np.inf
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / frequency).real
    made: NDArray[np.float64] = noise / noise.std()
    return made


def _places(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """``[n, 2]``, rows and columns of heads whose middle lies within the image."""
    angle, half = rng.uniform(0, np.pi), side
    found = []
    for across in np.arange(-half, half, _ROWS) + rng.uniform(0, _ROWS):
        along = -half + rng.uniform(0, _HEADS)
        while along < half:
            found.append((across, along))
            along += _HEADS + rng.uniform(-_JITTER, _JITTER)
    across, along = np.array(found).T
    y = side / 2 + across * np.cos(angle) + along * np.sin(angle)
    x = side / 2 - across * np.sin(angle) + along * np.cos(angle)
    inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
    places: NDArray[np.float64] = np.stack([y, x], 1)[inside]
    return places


def _disc(
    image: NDArray[np.float64], y: float, x: float, radius: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw a plant, and say where it is, ``[H, W]``."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    far = np.hypot(rows - y, columns - x)
    leaves = np.cos(_LEAVES * np.arctan2(rows - y, columns - x) + rng.uniform(0, 2 * np.pi))
    green = np.array(_GREEN) + rng.uniform(-_GREENS, _GREENS, 3)
    there: NDArray[np.bool_] = far <= radius
    shade = 1 + _DEPTH * (far / radius * leaves)[there]
    image[there] = green * shade[:, None]
    return there


def make_fields(folder: Path, seed: int = 0, number: dict[str, int] | None = None) -> None:
    """Write images and their masks, as ``NAME_mask.png`` beside them, into a new folder.

    Args:
        folder: that is made, with a folder below it for each of :data:`FIELDS`; it is there when all is.
        seed: of all that is drawn.
        number: of images, in the place of :data:`FIELDS`.

    Raises:
        GeomoeError: something is there already, or it cannot be written.
    """
    with new_folder(folder) as part:
        for place, (name, images) in enumerate((FIELDS if number is None else number).items()):
            (part / name).mkdir()
            for i in range(images):
                image, mask = field_sample(_chance(seed, place, i), STAGES[name])
                Image.fromarray(image).save(part / name / f"{i:03}.png")
                Image.fromarray(mask).save(part / name / f"{i:03}_mask.png")


def heads_of(name: str, seed: int = 0) -> NDArray[np.uint16]:
    """Numbers of heads, as of :func:`field_heads`, in ``FOLDER/NUMBER.png`` of :func:`make_fields`.

    Two that touch are one piece of the mask, and two here.
    """
    folder, _, file = name.partition("/")
    number = int(file.removesuffix(".png"))
    return field_heads(_chance(seed, list(FIELDS).index(folder), number), STAGES[folder])[1]


def _chance(seed: int, folder: int, number: int) -> np.random.Generator:
    return np.random.default_rng((seed, folder, number))
