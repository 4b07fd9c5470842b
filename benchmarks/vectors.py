"""What polygons of a large class map take: seconds and peak memory, of smooth and of ragged maps.

python benchmarks/vectors.py [--side 8192]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from scipy.ndimage import gaussian_filter

from geomoe.evaluation.hardware import hardware
from geomoe.evaluation.peak import process_peak
from geomoe.raster.vectors.polygons import write_polygons

CLASSES = {str(value): name for value, name in enumerate(("building", "land", "road", "trees", "water"), 1)}
MADE = {"smooth": 12.0, "ragged": 1.5}
"""Width in pixels by which noise is smoothed before the largest of five is the class."""


def write_map(path: Path, side: int, width: float) -> None:
    """A map of five classes, each where its field of smoothed noise is the largest."""
    best, values = np.full((side, side), -np.inf, np.float32), np.zeros((side, side), np.uint8)
    rng = np.random.default_rng(0)
    for value in range(1, 6):
        field = gaussian_filter(rng.standard_normal((side, side), np.float32), width, mode="wrap")
        values[field > best] = value
        np.maximum(best, field, out=best)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", nodata=0,
        crs="EPSG:32618", transform=rasterio.Affine(10, 0, 500000, 0, -10, 4500000), tiled=True,
        compress="deflate",
    ) as file:  # fmt: skip
        file.write(values, 1)
        file.write_colormap(1, {value: (40 * value, 90, 120, 255) for value in range(6)})
        file.update_tags(GEOMOE_LEGEND=json.dumps({"classes": CLASSES, "nodata": 0}))


def measured(path: Path, target: Path, least: int, said) -> None:
    """Polygons, seconds, and megabytes before and at most, into the queue ``said``."""
    before = process_peak()
    start = time.perf_counter()
    count = write_polygons(path, target, least=least)
    peak = process_peak()
    said.put((count, time.perf_counter() - start, before / 2**20, peak / 2**20))


def main() -> None:
    """Each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=8192, help="of the map, pixels")
    side = parser.parse_args().side
    context = multiprocessing.get_context("spawn")
    print(f"{side} x {side} pixels, {hardware('cpu')}\n")
    print("| map | least | polygons | seconds | peak, MB | before, MB | file, MB |\n|" + "---|" * 7)
    with tempfile.TemporaryDirectory() as folder:
        for name, width in MADE.items():
            path, target = Path(folder) / f"{name}.tif", Path(folder) / f"{name}.gpkg"
            write_map(path, side, width)
            for least in (1, 9):
                said = context.Queue()
                process = context.Process(target=measured, args=(path, target, least, said))
                process.start()
                count, seconds, before, peak = said.get()
                process.join()
                size = target.stat().st_size / 2**20
                cells = (
                    name,
                    least,
                    f"{count:,}",
                    *(f"{number:.0f}" for number in (seconds, peak, before, size)),
                )
                print("|", " | ".join(map(str, cells)), "|")


if __name__ == "__main__":
    main()
