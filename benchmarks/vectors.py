"""What polygons of a large class map take: seconds and peak memory, of smooth, ragged and speckled maps.

python benchmarks/vectors.py [--side 8192] [--maps speckled] [--class land] [--least 1]
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
WIDTHS = {"smooth": 12.0, "ragged": 1.5}
"""In pixels, by which noise is smoothed before the largest of five is the class."""
SPECKS = 0.03
"""Of a speckled map: share of the pixels that are not land, each by itself."""


def speckled(side: int) -> np.ndarray:
    """Values of a map that is land, one polygon of very many holes, with specks of the other classes."""
    rng = np.random.default_rng(0)
    values = np.full((side, side), 2, np.uint8)
    specks = np.flatnonzero(rng.random((side, side), np.float32) < SPECKS)
    values.ravel()[specks] = rng.choice(np.array([1, 3, 4, 5], np.uint8), len(specks))
    return values


def smoothed(side: int, width: float) -> np.ndarray:
    """Values of a map of five classes, each where its field of smoothed noise is the largest."""
    best, values = np.full((side, side), -np.inf, np.float32), np.zeros((side, side), np.uint8)
    rng = np.random.default_rng(0)
    for value in range(1, 6):
        field = gaussian_filter(rng.standard_normal((side, side), np.float32), width, mode="wrap")
        values[field > best] = value
        np.maximum(best, field, out=best)
    return values


def write_map(path: Path, values: np.ndarray) -> None:
    """A class map as geomoe writes it."""
    side = len(values)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", nodata=0,
        crs="EPSG:32618", transform=rasterio.Affine(10, 0, 500000, 0, -10, 4500000), tiled=True,
        compress="deflate",
    ) as file:  # fmt: skip
        file.write(values, 1)
        file.write_colormap(1, {value: (40 * value, 90, 120, 255) for value in range(6)})
        file.update_tags(GEOMOE_LEGEND=json.dumps({"classes": CLASSES, "nodata": 0}))


def measured(path: Path, target: Path, names: list[str], least: int, said) -> None:
    """Polygons, seconds of clock and processor, megabytes before and at most, into the queue ``said``."""
    before = process_peak()
    start, used = time.perf_counter(), time.process_time()
    count = write_polygons(path, target, names, least)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    said.put((count, seconds, used, process_peak() / 2**20, before / 2**20))


def main() -> None:
    """Each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=8192, help="of the map, pixels")
    parser.add_argument("--maps", nargs="+", choices=[*WIDTHS, "speckled"], default=[*WIDTHS, "speckled"])
    parser.add_argument(
        "--class", dest="names", nargs="+", default=[], help="of the polygons; of all if none"
    )
    parser.add_argument("--least", type=int, nargs="+", default=[1, 9], help="pixels of a polygon")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"{args.side} x {args.side} pixels, {hardware('cpu')}, {', '.join(args.names) or 'all classes'}\n")
    print("| map | least | polygons | seconds | of a processor | peak, MB | before, MB | file, MB |")
    print("|" + "---|" * 8)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.maps:
            path, target = Path(folder) / f"{name}.tif", Path(folder) / f"{name}.gpkg"
            write_map(path, smoothed(args.side, WIDTHS[name]) if name in WIDTHS else speckled(args.side))
            for least in args.least:
                said = context.Queue()
                process = context.Process(target=measured, args=(path, target, args.names, least, said))
                process.start()
                count, *numbers = said.get()
                process.join()
                numbers.append(target.stat().st_size / 2**20)
                cells = (name, least, f"{count:,}", *(f"{number:.0f}" for number in numbers))
                print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
