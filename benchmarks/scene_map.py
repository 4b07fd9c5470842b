"""What a map of classes of a whole scene takes, with its polygons: seconds and peak memory, of each scene.

    python benchmarks/scene_map.py --model FILE [--scenes FILE ... --bands 1,2,3] [--side 8192] [--kills 3]
                                   [--instances]

A made scene has as many bands as the model takes, of five kinds of ground with noise. Each scene is mapped
by `geomoe predict --vectors --summary`, in a process of its own; with `--kills` once more, by processes that
get SIGKILL at random moments and are begun again, to compare the bytes of map, polygons and counts. With
`--instances`, of a model that knows some, these are mapped, too, and part the polygons.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from filecmp import cmpfiles
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

import geomoe
from geomoe.evaluation.hardware import hardware

_ROWS, _REPEAT = 256, 2048


def write_scene(path: Path, side: int, bands: int) -> None:
    """A scene of uint8, whose ground repeats every 2048 pixels and whose noise does not."""
    rng = np.random.default_rng(0)
    fields = [gaussian_filter(rng.standard_normal((_REPEAT, _REPEAT), np.float32), 20, mode="wrap")
              for _ in range(5)]  # fmt: skip
    kinds = np.argmax(fields, axis=0)
    colours = rng.integers(40, 200, (bands, 5)).astype(np.float32)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=bands, dtype="uint8", crs="EPSG:32618",
        transform=rasterio.Affine(10, 0, 500000, 0, -10, 4500000), tiled=True, compress="deflate",
        photometric="RGB" if bands == 3 else "MINISBLACK",
    ) as file:  # fmt: skip
        columns = np.arange(side) % _REPEAT
        for top in range(0, side, _ROWS):
            rows = np.arange(top, min(top + _ROWS, side)) % _REPEAT
            strip = colours[:, kinds[rows][:, columns]] + 3 * rng.standard_normal(
                (bands, len(rows), side), np.float32
            )
            file.write(np.clip(strip, 1, 255).astype(np.uint8), window=Window(0, top, side, len(rows)))


def begun(scene: Path, model: str, folder: Path, bands: str | None, instances: bool) -> subprocess.Popen[str]:
    """A process that maps a scene into a folder."""
    out = folder / f"{scene.stem}_map.tif"
    more = ["--bands", bands] if bands else []
    more += ["--instances", str(folder / f"{scene.stem}_things.tif")] if instances else []
    asked = ["predict", scene, out, "--model", model, "--vectors", out.with_suffix(".gpkg"), "--summary",
             out.with_suffix(".csv"), "--overwrite", *more]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "geomoe.cli.main", *map(str, asked)], stdout=subprocess.PIPE, text=True
    )


def measured(scene: Path, model: str, folder: Path, bands: str | None, instances: bool) -> list[str]:
    """Size, seconds, peak memory and what was made, of one scene."""
    began = time.perf_counter()
    started = begun(scene, model, folder, bands, instances)
    said = started.stdout.read() if started.stdout else ""
    _, status, used = os.wait4(started.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{scene} could not be mapped")
    vectors = folder / f"{scene.stem}_map.gpkg"
    polygons = next(line for line in said.splitlines() if line.startswith(str(vectors))).split(": ")[1]
    with rasterio.open(scene) as file:
        size = f"{file.width} x {file.height} x {file.count}"
    return [scene.name, size, f"{seconds:.0f}", f"{used.ru_utime + used.ru_stime:.0f}",
            f"{used.ru_maxrss / 2**10:.0f}", polygons]  # fmt: skip


def killed(
    scene: Path, model: str, whole: Path, bands: str | None, instances: bool, kills: int, seconds: float
) -> str:
    """Whether what was killed and begun again has the bytes of what lies in ``whole``."""
    rng, hit = np.random.default_rng(0), 0
    with tempfile.TemporaryDirectory() as scratch:
        cut = Path(scratch)
        for _ in range(kills):
            started = begun(scene, model, cut, bands, instances)
            try:
                started.communicate(timeout=float(rng.uniform(0.2, 0.6)) * seconds)
            except subprocess.TimeoutExpired:
                started.kill()
                started.communicate()
                hit += 1
        last = begun(scene, model, cut, bands, instances)
        last.communicate()
        if last.returncode:
            raise SystemExit(f"{scene} could not be mapped after {hit} kills")
        files = [f"{scene.stem}_map{ending}" for ending in (".tif", ".gpkg", ".csv")]
        files += [f"{scene.stem}_things.tif"] if instances else []
        _, unlike, missing = cmpfiles(whole, cut, files, shallow=False)
    return f"{hit} kills: " + (f"{', '.join(unlike + missing)} differ" if unlike or missing else "equal")


def main() -> None:
    """Parse the arguments, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--scenes", type=Path, nargs="*", default=[])
    parser.add_argument("--side", type=int, default=8192, help="of the made scene; 0 for none")
    parser.add_argument("--bands", help="of the scenes")
    parser.add_argument("--kills", type=int, default=0, help="of a second run")
    parser.add_argument("--instances", action="store_true", help="map them, too")
    parser.add_argument("--folder", type=Path, help="where results are kept; of none they are removed")
    args = parser.parse_args()
    print(f"{Path(args.model).stem}, {hardware('cpu')}, {torch.get_num_threads()} threads\n")
    titles = ["scene", "pixels", "seconds", "of a processor", "peak, MB", "made"]
    titles += ["bytes"] if args.kills else []
    print("|", " | ".join(titles), "|\n|" + "---|" * len(titles))
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        scenes = list(args.scenes)
        if args.side:
            scenes.append(Path(scratch) / f"made_{args.side}.tif")
            write_scene(scenes[-1], args.side, geomoe.load(args.model).contract.bands)
        for scene in scenes:
            given = (scene, args.model, folder, args.bands, args.instances)
            row = measured(*given)
            if args.kills:
                row.append(killed(*given, args.kills, float(row[2])))
            print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
