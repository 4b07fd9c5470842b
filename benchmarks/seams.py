"""How much tiles show: a scene upscaled in small tiles beside the same scene upscaled whole.

    python benchmarks/seams.py [--scene FILE] [--tile 32] [--precision bfloat16] --json

``gradient_ratio`` is the mean step between neighbouring output pixels across tile lines over the mean step
elsewhere, divided by the same ratio of the untiled result: 1 means that no line can be found.
``step_at_lines`` looks at the difference of the two results alone: its mean step across tile lines, less
that elsewhere, as a share of the mean step between neighbouring pixels of the scene.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

import geomoe

DEFAULT = Path(__file__).parents[1] / "examples" / "data" / "sentinel2_l1c.tif"


def line_steps(image: NDArray[np.float64], period: int) -> tuple[float, float]:
    """Mean absolute step across every ``period``-th line, and that across all others; both directions."""
    at_lines, elsewhere = [], []
    for axis in (1, 2):
        steps = np.abs(np.diff(image, axis=axis)).mean(axis=(0, 3 - axis))
        at = np.arange(period - 1, len(steps), period)
        at_lines.append(steps[at].mean())
        elsewhere.append(np.delete(steps, at).mean())
    return float(np.mean(at_lines)), float(np.mean(elsewhere))


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", type=Path, default=DEFAULT)
    parser.add_argument("--model", default="mfg_hmoe_light")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--tile", type=int, default=32)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model = geomoe.load(args.model, args.scale)
    images = {}
    with tempfile.TemporaryDirectory() as folder, rasterio.open(args.scene) as file:
        for name, tile in (("tiled", args.tile), ("whole", max(file.width, file.height))):
            path = Path(folder) / f"{name}.tif"
            options = {"scale": args.scale, "tile": tile, "precision": args.precision}
            geomoe.upscale(args.scene, path, model=model, **options)
            with rasterio.open(path) as result:
                images[name] = result.read().astype(np.float64)
    difference = np.abs(images["tiled"] - images["whole"])
    period = args.tile * args.scale
    tiled, whole, between = (
        line_steps(image, period)
        for image in (images["tiled"], images["whole"], images["tiled"] - images["whole"])
    )
    found = {
        "scene": args.scene.name,
        "model": model.name,
        "precision": args.precision,
        "tile": args.tile,
        "margin": model.contract.tiling.margin,
        "gradient_ratio": round(tiled[0] / tiled[1] / (whole[0] / whole[1]), 5),
        "step_at_lines": round((between[0] - between[1]) / whole[1], 5),
        "equal_pixels": round(float((difference == 0).mean()), 5),
        "largest_difference": float(difference.max()),
        "mean_difference": round(float(difference.mean()), 5),
        "standard_deviation_of_scene": round(float(images["whole"].std()), 2),
    }
    print(json.dumps(found, indent=2) if args.json else "\n".join(f"{k:<28} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
