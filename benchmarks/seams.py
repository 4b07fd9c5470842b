"""How much tiles show: a scene in small tiles beside the same scene whole.

    python benchmarks/seams.py [--scene FILE] [--tile 32] [--precision bfloat16] --json
    python benchmarks/seams.py --model FILE [--scene FILE] [--tile 128]

``gradient_ratio`` is the mean step between neighbouring output pixels across tile lines over the mean step
elsewhere, divided by the same ratio of the untiled result: 1 means that no line can be found.
``step_at_lines`` looks at the difference of the two results alone: its mean step across tile lines, less
that elsewhere, as a share of the mean step between neighbouring pixels of the scene.

Of weights that give classes of pixels these are measured on class probabilities (of 255 levels), of tiles as
they are blended and, where the model is not local, of tiles that are cut; ``other_class`` is the share of
pixels that have another class than in the untiled map.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

import geomoe
from geomoe.raster.formats.open import open_scene

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


def made(model: Any, scene: Path, folder: Path, scale: int, tile: int, precision: str) -> NDArray[np.float64]:
    """What a model makes of a scene: an image, or class probabilities."""
    out, shares = folder / "out.tif", folder / "shares.tif"
    options = {"tile": tile, "precision": precision, "overwrite": True}
    if model.contract.gives("image"):
        geomoe.upscale(scene, out, model=model, scale=scale, **options)
    else:
        geomoe.predict(scene, out, model=model, probabilities=shares, **options)
    with rasterio.open(out if model.contract.gives("image") else shares) as result:
        found: NDArray[np.float64] = result.read().astype(np.float64)
    return found


def cut(model: Any) -> Any:
    """The same model, said to be local: its tiles are cut, not blended."""
    contract = model.contract
    tiling = replace(contract.tiling, reach=0)
    facts = {name: getattr(model, name) for name in ("model", "name", "hash", "reference", "card")}
    return SimpleNamespace(contract=replace(contract, tiling=tiling), **facts)


def compared(tiled: NDArray[np.float64], whole: NDArray[np.float64], period: int) -> dict[str, float]:
    """Measures of what is made in tiles, beside what is made of the whole."""
    difference = np.abs(tiled - whole)
    steps, of_whole, between = (line_steps(image, period) for image in (tiled, whole, tiled - whole))
    return {
        "gradient_ratio": round(steps[0] / steps[1] / (of_whole[0] / of_whole[1]), 5),
        "step_at_lines": round((between[0] - between[1]) / of_whole[1], 5),
        "equal_pixels": round(float((difference == 0).mean()), 5),
        "largest_difference": float(difference.max()),
        "mean_difference": round(float(difference.mean()), 5),
    }


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
    model = geomoe.load(args.model, None if args.model.endswith(".safetensors") else args.scale)
    of_images = model.contract.gives("image")
    scale = model.contract.scale if of_images else 1
    ways = (
        {"blended": model, "cut": cut(model)}
        if not (of_images or model.contract.tiling.exact)
        else {"": model}
    )
    with tempfile.TemporaryDirectory() as folder, open_scene(args.scene) as opened:
        side = max(opened.width, opened.height)
        whole, *tiled = (
            made(each, args.scene, Path(folder), scale, tile, args.precision)
            for each, tile in ((model, side), *((way, args.tile) for way in ways.values()))
        )
    found = {
        "scene": args.scene.name,
        "model": model.name,
        "precision": args.precision,
        "tile": args.tile,
        "margin": model.contract.tiling.margin,
        "standard_deviation_of_scene": round(float(whole.std()), 2),
    }
    for name, image in zip(ways, tiled, strict=True):
        facts = compared(image, whole, args.tile * scale)
        if not of_images:
            facts["other_class"] = round(float((image.argmax(0) != whole.argmax(0)).mean()), 5)
        found |= {f"{name} {fact}".strip(): value for fact, value in facts.items()}
    print(json.dumps(found, indent=2) if args.json else "\n".join(f"{k:<28} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
