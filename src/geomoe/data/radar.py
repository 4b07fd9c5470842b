"""Radar targets that are made: six bodies as three radars see them, of which at times one sees nothing.

A body is eight scatterers. A sample is seen from a direction within 30 degrees; its three bands are

- ``range_profile``: the magnitude of 64 range bins, with phases by chance; a bin is four pixels high, and
  the lines of the image are four times 16 bins;
- ``isar``: the scatterers in range and cross-range;
- ``micro_doppler``: a line that swings at the body's rate, 16 times of 16 frequencies; a time is a square of
  4 x 4 pixels.

So a square of 4 x 4 pixels is a piece of range, of the image, or a time. There is noise on everything, and in
a fifth of the samples one band is noise alone, which the file's name says:
``target_3/test_0017_noise_isar.png``. All noise may be made louder by a factor; the bodies of the set that is
known to be so are called ``noisy_target_1`` and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geomoe.data.split import Split, parts_by_name
from geomoe.files import new_folder

__all__ = [
    "LOUD", "NOISY_TARGETS", "RADARS", "TARGETS", "make_radar", "noise_of", "radar_files", "radar_sample",
]  # fmt: skip

RADARS = {"range_profile": 1, "isar": 1, "micro_doppler": 1}
"""The radars, each with the number of its bands."""
TARGETS = tuple(f"target_{number}" for number in range(1, 7))
NOISY_TARGETS = tuple(f"noisy_{name}" for name in TARGETS)
LOUD = 4.0
"""Times the usual noise, in which :data:`NOISY_TARGETS` are seen, so that a forest does not know them all."""

_SIDE, _REACH = 16, 1.5
_SCATTERERS, _JITTER, _WIDTH = 8, 0.03, {"range_profile": 0.04, "isar": 0.12, "micro_doppler": 0.12}
_SECTOR = np.deg2rad(30)
_NOISE, _NOISE_ALONE, _SPOILT = 0.1, 0.4, 0.2
_DARKEST, _BRIGHTEST = -1.5, 2.5
"""Values of the first and the last of 256 steps, each a sixth of the noise, and as many times louder."""
_TRAIN, _TEST, _VALIDATION = 3000, 1000, 0.05


def radar_sample(
    target: int, rng: np.random.Generator, noise: str | None = None, loud: float = 1.0
) -> NDArray[np.float32]:
    """One sample of a body, ``[3, 16, 16]``, in the order of :data:`RADARS`.

    Args:
        target: number of the body, from 0.
        rng: draws direction, phases and noise.
        noise: the radar that sees nothing but noise.
        loud: factor of all noise.
    """
    body = np.random.default_rng(target)
    x, y = body.uniform(-1, 1, (2, _SCATTERERS))
    strength, heading = body.uniform(0.3, 1, _SCATTERERS), body.uniform(0, 2 * np.pi)
    x, y = (place + rng.normal(0, _JITTER, _SCATTERERS) for place in (x, y))
    angle = heading + rng.uniform(-_SECTOR / 2, _SECTOR / 2)
    reach = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)

    echoes = strength * np.exp(1j * rng.uniform(0, 2 * np.pi, _SCATTERERS))
    profile = np.abs(_bell(4 * _SIDE, reach, _WIDTH["range_profile"]) @ echoes)  # [64]
    isar = _bell(_SIDE, reach, _WIDTH["isar"]) * strength @ _bell(_SIDE, across, _WIDTH["isar"]).T
    phase = 2 * np.pi * ((1 + target / 2) * np.arange(_SIDE) / _SIDE + rng.random())
    doppler = _bell(_SIDE, np.sin(phase), _WIDTH["micro_doppler"]).T  # [times, frequencies]

    seen = dict(zip(RADARS, (profile, isar, doppler), strict=True))
    for name, values in seen.items():
        drawn = rng.normal(0, loud * (_NOISE_ALONE if name == noise else _NOISE), values.shape)
        seen[name] = drawn if name == noise else values + drawn
    quarter = _SIDE // 4
    lines = seen["range_profile"].reshape(4, _SIDE).repeat(quarter, 0)
    times = seen["micro_doppler"].reshape(4, 4, quarter, quarter).swapaxes(1, 2).reshape(_SIDE, _SIDE)
    return np.stack([lines, seen["isar"], times]).astype(np.float32)


def _bell(cells: int, centres: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """``[cells, centres]``, Gaussians over cells from -1.5 to 1.5."""
    places = np.linspace(-_REACH, _REACH, cells)[:, None]
    bells: NDArray[np.float64] = np.exp(-0.5 * ((places - centres) / width) ** 2)
    return bells


def make_radar(
    folder: Path,
    train: int = _TRAIN,
    test: int = _TEST,
    seed: int = 0,
    targets: Sequence[str] = TARGETS,
    loud: float = 1.0,
) -> None:
    """Write samples of all bodies into a new folder, as RGB images of 16 x 16 pixels.

    Args:
        folder: that is made; it is there when all of it is.
        train: number of samples to train on.
        test: number of samples to test on.
        seed: of all that is drawn.
        targets: names of the bodies.
        loud: factor of all noise.

    Raises:
        GeomoeError: something is there already, or it cannot be written.
    """
    with new_folder(folder) as part:
        for name in targets:
            (part / name).mkdir()
        for number, (split, count) in enumerate((("train", train), ("test", test))):
            for i in range(count):
                rng = np.random.default_rng((seed, number, i))
                noise = str(rng.choice(list(RADARS))) if rng.random() < _SPOILT else None
                target = i % len(targets)
                values = radar_sample(target, rng, noise, loud) / loud
                values = (values - _DARKEST) / (_BRIGHTEST - _DARKEST)
                pixels = np.rint(255 * values.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
                name = f"{split}_{i:04}" + (f"_noise_{noise}" if noise else "")
                Image.fromarray(np.ascontiguousarray(pixels)).save(part / targets[target] / f"{name}.png")


def noise_of(name: str) -> str | None:
    """The radar that is noise alone in a sample, by the name of its file."""
    return Path(name).stem.partition("_noise_")[2] or None


def radar_files(root: Path, split: Split) -> list[Path]:
    """Paths of a split below the folder of the bodies; ``validation`` is every 20th of ``train``."""
    return parts_by_name(sorted(root.glob("*target_?/*.png")), split, _VALIDATION)
