"""A folder like that of IDTReeS, in which two trees differ by height alone, and a third by its spectrum."""

import csv

import numpy as np
import rasterio
from rasterio.transform import from_origin

BANDS, SIDE = 10, 12
NODATA = -9999
TREES = {"Acer rubrum L.": (0, 6.0), "Acer saccharum Marshall": (0, 24.0), "Pinus taeda L.": (1, 15.0)}
"""Number of the spectrum, and height in metres."""


def save(path, values, x, y, nodata, side=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[2], height=values.shape[1], count=len(values),
        dtype=values.dtype.name, nodata=nodata, crs="EPSG:32617", transform=from_origin(x, y, side, side),
    ) as file:  # fmt: skip
        file.write(values)


def plots(root, number=6, noise=60.0, seed=0):
    """``number`` plots of 12 x 12 m at each of two sites, 100 m apart, with four crowns of 5 m in each."""
    rng = np.random.default_rng(seed)
    spectra = rng.integers(500, 3000, (3, BANDS))  # the last one is of the ground
    lines = []
    for site, east in (("NORTH", 0), ("SOUTH", 100_000)):
        for i in range(number):
            plot = f"{site}_{i}"
            spectrum, height = np.full((SIDE, SIDE), 2), np.zeros((SIDE, SIDE))
            for place in range(4):
                y, x = (1 + 5 * at for at in divmod(place, 2))
                species = list(TREES)[int(rng.integers(len(TREES)))]
                box = (slice(y, y + 5), slice(x, x + 5))
                spectrum[box], height[box] = TREES[species]
                edges = (10 * x, 10 * y, 10 * x + 50, 10 * y + 50)
                lines.append([plot, site, f"{plot}_{place}", species, *edges])
            values = spectra[spectrum].transpose(2, 0, 1) + rng.normal(0, noise, (BANDS, SIDE, SIDE))
            save(root / "hsi" / f"{plot}.tif", values.astype(np.int16), east + 100 * i, 5000, NODATA)
            height = height + rng.normal(0, 0.5, height.shape)
            save(root / "chm" / f"{plot}.tif", height[None].astype(np.float32), east + 100 * i, 5000, -3.4e38)
    return crowns(root, lines)


def crowns(root, lines):
    """Write ``crowns.csv``, a line for plot, site, individual, species and the four edges of its box."""
    with (root / "crowns.csv").open("w", newline="") as file:
        head = ("plot", "site", "individual", "species", "column_min", "row_min", "column_max", "row_max")
        csv.writer(file).writerows([head, *lines])
    return root
