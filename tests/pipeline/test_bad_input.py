"""Bad input ends in one line that says what to do, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.models.contract import ModelContract, Tiling
from geomoe.moe.plan import RoutingTrace
from geomoe.pipeline import upscale
from tests.pipeline.fakes import FakeUpscaler, convolutional, nearest
from tests.scenes import left_over, pixels, write_scene


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "src.tif", pixels(3, 30, 30, "uint16"))


def _refusal(src: Path, dst: Path, model: FakeUpscaler | None = None, **options: Any) -> str:
    """The message of the job's refusal; the target's folder must look as it did before."""
    folder = dst.parent if dst.parent.exists() else src.parent
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(GeomoeError) as caught:
        upscale(src, dst, model=model or nearest(), **{"scale": 2, **options})
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_scene_that_is_none(tmp_path: Path) -> None:
    dst = tmp_path / "dst.tif"
    assert "does not exist" in _refusal(tmp_path / "no.tif", dst)
    text = tmp_path / "text.tif"
    text.write_text("hello")
    assert "cannot be opened as a GeoTIFF" in _refusal(text, dst)


def test_truncated_scene(src: Path, tmp_path: Path) -> None:
    src.write_bytes(src.read_bytes()[:-1000])
    assert "src.tif" in _refusal(src, tmp_path / "dst.tif")


def test_block_that_cannot_be_read(tmp_path: Path) -> None:
    src = write_scene(tmp_path / "s.tif", pixels(1, 300, 300, "uint16"), tiled=True, compress="deflate")
    raw = bytearray(src.read_bytes())
    raw[-5000:-1000] = bytes(4000)
    src.write_bytes(raw)
    assert "damaged" in _refusal(src, tmp_path / "dst.tif")


def test_nothing_valid(tmp_path: Path) -> None:
    src = write_scene(tmp_path / "s.tif", np.full((2, 20, 20), np.nan, dtype=np.float32))
    assert "no valid pixel" in _refusal(src, tmp_path / "dst.tif")
    src = write_scene(tmp_path / "s.tif", np.zeros((2, 20, 20), dtype=np.uint8), nodata=0)
    assert "no valid pixel" in _refusal(src, tmp_path / "dst.tif")


def test_wrong_scale_bands_tile_and_device(src: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst.tif"
    assert "weights for scale 2" in _refusal(src, dst, scale=4)
    assert "no band 'B08'" in _refusal(src, dst, bands="B08")
    assert "1 or more" in _refusal(src, dst, tile=-5)
    assert "device 'abacus'" in _refusal(src, dst, device="abacus")


def test_scene_with_a_mask_and_no_data(tmp_path: Path) -> None:
    src = write_scene(tmp_path / "s.tif", pixels(2, 9, 9, "uint8"), alpha="YES")
    assert "mask and not data" in _refusal(src, tmp_path / "dst.tif", bands=[2])


def test_targets(src: Path, tmp_path: Path) -> None:
    assert "does not exist" in _refusal(src, tmp_path / "no" / "dst.tif")
    assert not (tmp_path / "no").exists()
    old = tmp_path / "old.tif"
    old.write_text("old")
    assert "--overwrite" in _refusal(src, old)
    assert "--overwrite" in _refusal(src, tmp_path / "dst.tif", experts=old)
    assert "input itself" in _refusal(src, src, overwrite=True)
    assert "input itself" in _refusal(src, tmp_path / "dst.tif", experts=src, overwrite=True)
    assert "two names" in _refusal(src, tmp_path / "dst.tif", experts=tmp_path / "dst.tif")


def test_model_that_routes_nothing_has_no_expert_map(src: Path, tmp_path: Path) -> None:
    message = _refusal(src, tmp_path / "dst.tif", convolutional(), experts=tmp_path / "experts.tif")
    assert "routes nothing" in message


def test_old_files_survive_a_failure(src: Path, tmp_path: Path) -> None:
    for name in ("dst.tif", "experts.tif"):
        (tmp_path / name).write_text("old")
    options = {"experts": tmp_path / "experts.tif", "overwrite": True}
    assert "routes nothing" in _refusal(src, tmp_path / "dst.tif", convolutional(), **options)


class _Failing(torch.nn.Module):
    """Does well for one tile, then something else."""

    def __init__(self, then: Any) -> None:
        super().__init__()
        self.then, self.calls = then, 0

    def forward(self, x: torch.Tensor, trace: RoutingTrace | None = None) -> torch.Tensor:
        self.calls += 1
        out = torch.nn.functional.interpolate(x, scale_factor=2)
        return out if self.calls <= 1 else self.then(out)


def _raises(error: BaseException) -> Any:
    def then(_: torch.Tensor) -> torch.Tensor:
        raise error

    return then


def _failing(then: Any) -> FakeUpscaler:
    return FakeUpscaler(_Failing(then), ModelContract.of_images(2, 3, Tiling(4, 16, 4)))


@pytest.fixture
def _one_at_a_time() -> Iterator[None]:
    """What fails at its second call fails at the second tile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_at_a_time")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_from_the_model_names_the_tile(src: Path, tmp_path: Path, value: float) -> None:
    message = _refusal(src, tmp_path / "dst.tif", _failing(lambda out: out * value))
    assert "columns 16+14, rows 0+16" in message


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
    ],
)
def test_out_of_memory(src: Path, tmp_path: Path, error: BaseException) -> None:
    assert "--tile" in _refusal(src, tmp_path / "dst.tif", _failing(_raises(error)))


def test_weights_for_another_size(src: Path, tmp_path: Path) -> None:
    message = _refusal(src, tmp_path / "dst.tif", _failing(lambda out: out[..., ::2, ::2]))
    assert "cannot be used" in message


def test_a_mistake_of_ours_leaves_nothing_either(src: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a mistake"):
        upscale(
            src, tmp_path / "dst.tif", model=_failing(_raises(ValueError("a mistake in the model"))), scale=2
        )
    assert not (tmp_path / "dst.tif").exists()


def test_too_little_space_is_seen_before_the_work(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    model = _failing(_raises(AssertionError("the model was run")))
    assert "free some space" in _refusal(src, tmp_path / "dst.tif", model)


_FULL_DISK = """
import resource, sys
from pathlib import Path
from geomoe.errors import GeomoeError
from geomoe.pipeline import upscale
from tests.pipeline.fakes import nearest
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    upscale(folder / "src.tif", folder / "dst.tif", model=nearest(tile=128), scale=2,
            experts=folder / "experts.tif")
except GeomoeError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.parametrize(
    "limit",
    [900_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (10_000, 700_000, 2_500_000, 2_800_000))],
)
def test_disk_that_fills_during_the_work(tmp_path: Path, limit: int) -> None:
    noise = np.random.default_rng(0).integers(0, 65535, (3, 300, 300), dtype=np.uint16)
    write_scene(tmp_path / "src.tif", noise)
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "src")])
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path), str(limit)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""  # libtiff would tell of every block
    assert "cannot write" in done.stdout
    assert {name for name in left_over(tmp_path) if not name.startswith(".")} == {"src.tif"}
