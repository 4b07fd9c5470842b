"""What the scripts of this folder share: made scenes, and a tiny model that routes."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from torch import nn

from geomoe import create_model
from geomoe.models.contract import ModelContract, Tiling

TINY = {"embed_dim": 8, "depths": [1, 1], "heads": 2, "window": 4, "squeeze": 4, "width": 4,
        "expert_width": 4, "router_width": 4, "experts_per_group": 2}  # fmt: skip


@dataclass(frozen=True)
class Tiny:
    """A model of a few hundred weights, quick enough that the work around it is what takes the time."""

    model: nn.Module
    contract: ModelContract
    name: str = "tiny"
    hash: str = "tiny"


def tiny(scale: int = 2, tile: int = 16) -> Tiny:
    """MFG-HMoE with eight channels, always the same."""
    torch.manual_seed(0)
    model = create_model("mfg_hmoe_light", scale=scale, **TINY)
    return Tiny(model, ModelContract.of_images(scale, 3, Tiling(4, tile, 4)))


def write_scene(
    path: Path, width: int, height: int, bands: int = 3, dtype: str = "uint16", seed: int = 0, **options: Any
) -> Path:
    """A GeoTIFF of smooth structure and noise, written a band of rows at a time."""
    rng = np.random.default_rng(seed)
    high = 200 if dtype == "uint8" else 5000
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=dtype, crs="EPSG:32633",
        transform=Affine(10, 0, 399960, 0, -10, 4900020), tiled=True, blockxsize=256, blockysize=256,
        photometric="MINISBLACK", alpha="NO", **options,
    ) as file:  # fmt: skip
        x = np.arange(width)[None]
        for y in range(0, height, 256):
            rows = np.arange(y, min(y + 256, height))[:, None]
            wave = (np.sin(x / 9) + np.cos(rows / 11) + 2) / 4 * high * 0.8  # [h, W]
            noise = rng.integers(0, high // 5, (bands, *wave.shape))
            window = rasterio.windows.Window(0, y, width, len(rows))
            file.write((wave[None] + noise + 1).astype(dtype), window=window)
    return path


def sha(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fork(work: Callable[[], object]) -> int:
    """Run something in a child of this process, which needs no imports of its own; gives its number.

    Its exit status is 0, or 1 after an exception. The parent must not have used torch's threads.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
