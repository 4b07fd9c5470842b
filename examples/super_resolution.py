"""What ``make demo`` runs: two small scenes through ``geomoe upscale``, a score, and one picture.

A Sentinel-2 cut shows the main job. An aerial image, made four times smaller first, has a truth to
compare with. Everything is offline; what is written lies in ``demo-output/``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import rasterio
import torch
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from geomoe.data.images import to_unit
from geomoe.data.super_resolution.degradation import get_degradation, interpolated
from geomoe.data.super_resolution.pairs import degrade
from geomoe.metrics.protocol import get_protocol

HERE = Path(__file__).parent
DATA = HERE / "data"
OUT = HERE.parent / "demo-output"
SCALE = 4

# Okabe and Ito's blue and vermilion: people with any of the common colour deficiencies tell them apart. A
# group of experts is a hue, its members are shades that also differ in lightness.
GROUP_RAMPS = (("#cfe8f7", "#0b3c5d"), ("#fde0c5", "#8a2d04"), ("#d9f0e3", "#00523b"), ("#f4dbe9", "#6b2a52"))


def geomoe(*args: str) -> None:
    """Run the command line, showing the command."""
    print(f"$ geomoe {' '.join(args)}", flush=True)
    subprocess.run([sys.executable, "-m", "geomoe.cli.main", *args], check=True, cwd=HERE.parent)


def upscale(name: str, source: Path) -> tuple[Path, Path]:
    """Super-resolve ``source``; returns the result and its expert map."""
    result, experts = OUT / f"{name}_x4.tif", OUT / f"{name}_experts.tif"
    paths = [str(p.relative_to(HERE.parent)) for p in (source, result, experts)]
    geomoe("upscale", paths[0], paths[1], "--scale", str(SCALE), "--experts", paths[2], "--overwrite")
    return result, experts


def read(path: Path, bands: int = 3) -> NDArray[np.float32]:
    """The first bands of a raster, ``[bands, H, W]``."""
    with rasterio.open(path) as file:
        array: NDArray[np.float32] = file.read(list(range(1, bands + 1))).astype(np.float32)
    return array


def bicubic(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Upsample by bicubic interpolation."""
    return interpolated(torch.from_numpy(array)[None], SCALE)[0].numpy()


def small_aerial() -> tuple[Path, torch.Tensor]:
    """The aerial image downsampled, as a GeoTIFF, and its truth ``[3, H, W]`` in [0, 1]."""
    image = np.asarray(Image.open(DATA / "ucmerced_airplane71.png").convert("RGB"))
    low, high = degrade(torch.from_numpy(image.copy()).permute(2, 0, 1), SCALE, get_degradation("bilinear"))
    path = OUT / "aerial_small.tif"
    grid = rasterio.Affine(0.3 * SCALE, 0, 0, 0, -0.3 * SCALE, 0)
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "width": low.shape[2], "height": low.shape[1]}
    with rasterio.open(path, "w", **profile, transform=grid, photometric="rgb") as file:
        file.write(low.numpy())
    return path, to_unit(high)


def palette(sizes: list[int]) -> list[list[NDArray[np.float64]]]:
    """A colour for every expert of every group."""
    ramps = [[np.array(matplotlib.colors.to_rgb(end)) for end in ramp] for ramp in GROUP_RAMPS]
    return [
        [a + (b - a) * m / max(size - 1, 1) for m in range(size)]
        for (a, b), size in zip(ramps, sizes, strict=False)
    ]


def expert_picture(path: Path) -> tuple[NDArray[np.float64], list[Patch]]:
    """An expert map in colour, ``[H, W, 3]``, and its legend with each expert's share of the pixels."""
    groups, members, *_ = read(path).astype(int)
    with rasterio.open(path) as file:
        legend = json.loads(file.tags()["GEOMOE_LEGEND"])
    described = legend["groups"]
    colours = palette([group["experts"] for group in described])
    picture = np.ones((*groups.shape, 3))
    patches = []
    for g, (group, shades) in enumerate(zip(described, colours, strict=False), 1):
        kernel = group.get("kernel_size")
        for m, colour in enumerate(shades, 1):
            chosen = (groups == g) & (members == m)
            picture[chosen] = colour
            if chosen.any():
                label = f"{kernel}x{kernel}" if kernel else f"group {g}"
                patches.append(Patch(color=colour, label=f"{label} expert {m}: {chosen.mean():.0%}"))
    return picture, patches


def shown(
    array: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]
) -> NDArray[np.float32]:
    """An array ``[3, H, W]`` for display, the same stretch for all that are compared."""
    span = (high - low)[:, None, None]
    result: NDArray[np.float32] = np.clip((array - low[:, None, None]) / span, 0, 1).transpose(1, 2, 0)
    return result


def main() -> None:
    """Run both scenes, print the scores, draw the picture."""
    OUT.mkdir(exist_ok=True)
    satellite = DATA / "sentinel2_l1c.tif"
    satellite_out, satellite_experts = upscale("sentinel2", satellite)
    small, truth = small_aerial()
    aerial_out, aerial_experts = upscale("aerial", small)

    inputs = {"aerial": read(small), "sentinel2": read(satellite)}
    results = {"aerial": read(aerial_out), "sentinel2": read(satellite_out)}
    maps = {"aerial": aerial_experts, "sentinel2": satellite_experts}

    rules = get_protocol("mfg_hmoe")
    ours = rules.score(torch.from_numpy(results["aerial"]) / 255, truth, SCALE)
    base = rules.score(torch.from_numpy(bicubic(inputs["aerial"])) / 255, truth, SCALE)
    print(f"\naerial x{SCALE}, protocol mfg_hmoe     PSNR      SSIM")
    print(f"  bicubic                     {base[0]:6.2f} dB  {base[1]:.4f}")
    print(f"  geomoe                      {ours[0]:6.2f} dB  {ours[1]:.4f}   ({ours[0] - base[0]:+.2f} dB)")

    figure, axes = plt.subplots(2, 5, figsize=(16.5, 6.6), layout="constrained")
    for row, name in zip(axes, inputs, strict=True):
        low, high = np.percentile(inputs[name], (0.5, 99.5), axis=(1, 2))
        picture, patches = expert_picture(maps[name])
        panels = {
            f"{name}: input": shown(inputs[name], low, high),
            "bicubic": shown(bicubic(inputs[name]), low, high),
            "geomoe": shown(results[name], low, high),
            "truth": shown(truth.numpy() * 255, low, high) if name == "aerial" else None,
            "expert of each pixel": picture,
        }
        for axis, (title, panel) in zip(row, panels.items(), strict=True):
            axis.set_axis_off()
            if panel is None:
                axis.text(
                    0.5, 0.5, "no truth:\nthe sensor saw no finer", ha="center", va="center", color="0.4"
                )
                continue
            axis.imshow(panel, interpolation="nearest")
            score = {"bicubic": base, "geomoe": ours}.get(title) if name == "aerial" else None
            axis.set_title(f"{title}, {score[0]:.2f} dB" if score else title, fontsize=10)
        row[-1].legend(
            handles=patches, fontsize=6.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False
        )
    picture_path = OUT / "demo.png"
    figure.savefig(picture_path, dpi=110)
    print(f"\npicture: {picture_path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
