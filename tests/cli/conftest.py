"""A tiny model and a small scene."""

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from geomoe.models.weights import save
from tests.models.super_resolution.upscaler import upscaler
from tests.models.test_weights import card_of


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = upscaler()
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(path, model, card_of(model))
    return str(path)


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.tif"
    data = np.random.default_rng(0).integers(1, 255, (3, 20, 30), dtype=np.uint8)
    profile = {
        "driver": "GTiff",
        "width": 30,
        "height": 20,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32618",
    }
    with rasterio.open(path, "w", **profile, transform=from_origin(500_000, 4_000_000, 10, 10)) as file:
        file.write(data)
    return path
