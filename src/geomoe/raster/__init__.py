"""Scenes on disk: opened safely, read in windows, written as cloud-optimised GeoTIFFs.

Nothing here knows about models; rasterio, numpy, scipy and jsonschema are all it needs.
"""

from __future__ import annotations

from geomoe.raster.read.proj import pin_data

pin_data()  # before rasterio looks for it

# ruff: noqa: E402
from geomoe.raster.formats.open import open_scene
from geomoe.raster.read.bands import band_names, band_order, learning_bands, left_out, select_bands
from geomoe.raster.read.radiometry import Radiometry, decide_radiometry
from geomoe.raster.read.sample import SceneSample, look, sample_scene
from geomoe.raster.read.scene import Scene
from geomoe.raster.read.validity import fill_invalid, upsample_mask
from geomoe.raster.write.cog import write_cog
from geomoe.raster.write.metadata import CogMetadata, carried_over
from geomoe.raster.write.scratch import Scratch
from geomoe.raster.write.target import Target, commit

__all__ = [
    "CogMetadata",
    "Radiometry",
    "Scene",
    "SceneSample",
    "Scratch",
    "Target",
    "band_names",
    "band_order",
    "carried_over",
    "commit",
    "decide_radiometry",
    "fill_invalid",
    "learning_bands",
    "left_out",
    "look",
    "open_scene",
    "sample_scene",
    "select_bands",
    "upsample_mask",
    "write_cog",
]
