"""One picture of what weights make of many crops: sea, fields, roofs, clouds, forest, shadows, single bands.

    python benchmarks/super_resolution/sheet.py sheet.png --data FOLDER [--scale 4]
        [--model FILE ...] [--only sea ...]

Of each crop the input, bicubic upsampling and each model, all with one stretch. The crops are in crops.csv
beside this script: name, image below the folder, its bands, upper left corner and side in input pixels.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rasterio.windows import Window

import geomoe
from geomoe.data.images import read_image, to_unit
from geomoe.data.super_resolution.degradation import interpolated
from geomoe.layers.super_resolution.known import Known
from geomoe.models import LoadedModel
from geomoe.noise import image_noise
from geomoe.pipeline.choice import for_model
from geomoe.pipeline.runner import Runner
from geomoe.raster.formats.open import open_scene
from geomoe.raster.read.bands import select_bands
from geomoe.raster.read.known import known_of
from geomoe.raster.read.radiometry import decide_radiometry
from geomoe.raster.read.sample import sample_scene

CROPS = Path(__file__).with_name("crops.csv")
_PANEL, _GAP, _HEAD, _AROUND = 256, 4, 16, 16
_IN_A_ROW = 2
_MODELS = ["mfg_hmoe_light", "mfg_hmoe_light_satellites"]
_STRETCH = (0.5, 99.5)


def read(path: Path, bands: str) -> tuple[NDArray[np.float32], Known]:
    """A whole image ``[C, h, w]`` in the range that models see, and what `upscale` would tell them of it."""
    if path.suffix != ".tif":
        image = to_unit(read_image(path)).numpy()
        return image, Known(noise=image_noise(image))
    with open_scene(path) as scene:
        chosen = select_bands(scene, bands, 3)
        data, _ = scene.read(Window(0, 0, scene.width, scene.height), chosen)
        sample = sample_scene(scene, chosen)
        radiometry = decide_radiometry(scene.dtype, sample)
        return radiometry.to_model(data), for_model(known_of(scene).with_noise(sample, radiometry))


def panels(row: dict[str, str], path: Path, models: list[LoadedModel], scale: int) -> list[Image.Image]:
    """Input, bicubic upsampling and models, of one crop."""
    image, known = read(path, row["bands"])
    runners = [Runner(model, torch.device("cpu"), known=known) for model in models]
    x, y, side = (int(row[key]) for key in ("x", "y", "side"))
    top, left = max(0, y - _AROUND), max(0, x - _AROUND)
    low = np.ascontiguousarray(image[:, top : y + side + _AROUND, left : x + side + _AROUND])
    bicubic = interpolated(torch.from_numpy(low)[None], scale)[0].numpy()
    nearest = low.repeat(scale, 1).repeat(scale, 2)
    ends = np.percentile(image[:, y : y + side, x : x + side], _STRETCH, axis=(1, 2))[..., None, None]
    inner = [slice((n - start) * scale, (n - start + side) * scale) for n, start in ((y, top), (x, left))]
    shown = []
    for result in (nearest, bicubic, *(runner(low) for runner in runners)):
        unit = ((result[:, *inner] - ends[0]) / np.maximum(ends[1] - ends[0], 1e-6)).clip(0, 1)
        pixels = np.moveaxis(unit if len(unit) == 3 else unit[:1].repeat(3, 0), 0, -1)
        picture = Image.fromarray((pixels * 255).round().astype(np.uint8))
        shown.append(picture.resize((_PANEL, _PANEL), Image.Resampling.NEAREST))
    return shown


def main() -> None:
    """Parse the arguments, run, write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the picture, .png")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--model", action="append", help="name or file of weights, repeatable")
    parser.add_argument("--only", action="append", help="crops of this name, repeatable")
    args = parser.parse_args()
    models = [geomoe.load(name, args.scale) for name in args.model or _MODELS]
    with CROPS.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not args.only or row["what"] in args.only]
    for row in rows:
        if not (args.data / row["image"]).is_file():
            print(f"{row['what']}: left out, {args.data / row['image']} is not there")
    rows = [row for row in rows if (args.data / row["image"]).is_file()]
    if not rows:
        raise SystemExit("no crop to draw; see benchmarks/super_resolution/crops.csv")
    in_a_row = 1 if args.only else _IN_A_ROW
    width = (2 + len(models)) * (_PANEL + _GAP) + 2 * _GAP
    height = _PANEL + _HEAD
    sheet = Image.new("RGB", (in_a_row * width, -(-len(rows) // in_a_row) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top, left = number // in_a_row * height, number % in_a_row * width
        found = panels(row, args.data / row["image"], models, args.scale)
        names = [f"{row['what']} ({Path(row['image']).name})", "bicubic", *(model.name for model in models)]
        for i, (name, panel) in enumerate(zip(names, found, strict=True)):
            at = left + i * (_PANEL + _GAP)
            pen.text((at, top + 2), name[:42], fill="black")
            sheet.paste(panel, (at, top + _HEAD))
    sheet.save(args.output)
    print(f"{args.output}: {len(rows)} crops, x{args.scale}")


if __name__ == "__main__":
    main()
