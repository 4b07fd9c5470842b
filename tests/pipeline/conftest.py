"""What several tests of this folder are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geomoe import create_model
from geomoe.models.weights import save
from geomoe.pipeline import Request
from tests.models.test_weights import card_of


@pytest.fixture
def settings(tmp_path: Path) -> Request:
    """Weights of EDSR, tiny, and small tiles, for scenes that are yet to be named."""
    torch.manual_seed(0)
    model = create_model("edsr", scale=2, width=4, blocks=1)
    save(tmp_path / "tiny.safetensors", model, replace(card_of(model), model="edsr"))
    return Request("", "", model=str(tmp_path / "tiny.safetensors"), scale=2, tile=16, device="cpu")


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return tmp_path / "src.tif"


@pytest.fixture
def dst(tmp_path: Path) -> Path:
    return tmp_path / "dst.tif"
