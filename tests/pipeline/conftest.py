"""What several tests of this folder are given."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geomoe import create_model
from geomoe.models.weights import save
from geomoe.pipeline import Request
from tests.models.test_weights import card_of
from tests.pipeline.interrupted import left_alone


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


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `left_alone`; to be copied, and left as it is."""
    return left_alone(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of a scene and of what a job made of it, and a folder for jobs that are cut off."""
    return Path(shutil.copytree(whole, tmp_path, dirs_exist_ok=True))
