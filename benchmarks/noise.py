"""How near the noise that is estimated of a scene comes to noise that was added to it.

python benchmarks/noise.py SCENE...

Prints a line for each scene: what is found of it as it is, and after white noise of known standard deviations
was added, in units of the model's range, which is 0 to 1. What is found of the scene itself is its own noise,
or texture where no block is even; squares of it and of what is added add up.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geomoe.noise import EvenBlocks
from geomoe.raster import decide_radiometry, look, open_scene

ADDED = (0.002, 0.005, 0.01, 0.02, 0.05)


def found(data: NDArray[np.float32], valid: NDArray[np.bool_]) -> float:
    """The noise of ``[C, H, W]`` in the model's range, the median of its bands'."""
    blocks = EvenBlocks(len(data))
    blocks.add(data, valid)
    return float(np.median([noise for noise in blocks.noise() if noise is not None]))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenes", nargs="+", type=Path)
    print(f"{'scene':<26}{'as it is':>9}", *(f"{sigma:>8g}" for sigma in ADDED))
    for path in parser.parse_args().scenes:
        with open_scene(path) as scene:
            bands = scene.data_bands
            scene, sample = look(scene, bands)
            data, valid = scene.read(Window(0, 0, scene.width, scene.height), bands)
            unit = decide_radiometry(scene.dtype, sample).to_model(data)
        rng = np.random.default_rng(0)
        noisy = (unit + rng.normal(0, sigma, unit.shape).astype(np.float32) for sigma in ADDED)
        print(
            f"{path.stem[:25]:<26}{found(unit, valid):>9.4f}",
            *(f"{found(data, valid):>8.4f}" for data in noisy),
        )


if __name__ == "__main__":
    main()
