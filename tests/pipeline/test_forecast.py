"""What a job is said to need, and what it may take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.pipeline import forecast_upscale, plan_upscale, upscale
from geomoe.pipeline import memory as memory_module
from geomoe.pipeline.memory import available_memory, fitting_workers
from tests.pipeline.fakes import nearest
from tests.scenes import left_over, pixels, write_scene

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_dry_run_foretells_the_disk_and_writes_nothing(tmp_path: Path, dtype: str) -> None:
    write_scene(tmp_path / "src.tif", pixels(3, 600, 500, dtype), nodata=0)
    told = forecast_upscale(tmp_path / "src.tif", tmp_path / "dst.tif", model=nearest(tile=64), scale=2)
    assert left_over(tmp_path) == ["src.tif"]
    assert told.tried == 12
    assert told.seconds > 4
    assert told.memory_bytes > 10**8
    upscale(tmp_path / "src.tif", tmp_path / "dst.tif", model=nearest(tile=64), scale=2)
    assert told.output_bytes == pytest.approx((tmp_path / "dst.tif").stat().st_size, rel=0.2)


def test_of_a_scene_of_one_tile_that_tile_is_tried(tmp_path: Path) -> None:
    write_scene(tmp_path / "src.tif", pixels(3, 5, 7, "uint8"))
    told = forecast_upscale(tmp_path / "src.tif", tmp_path / "dst.tif", model=nearest(), scale=2)
    assert (told.tried, told.plan.tiles, told.plan.workers) == (1, 1, 1)


def test_memory_decides_how_many_tiles_are_done_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "available_memory", lambda: 1000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert fitting_workers(100, 100, 50, CPU, None) == 4, "half of what is free"
    assert fitting_workers(100, 100, 50, CPU, 950) == 8
    assert fitting_workers(100, 100, 50, CPU, 350) == 2
    assert fitting_workers(100, 100, 3, CPU, 950) == 3, "no more than there are tiles"
    assert fitting_workers(100, 700, 50, CPU, None) == 1, "one as long as it fits at all"
    assert fitting_workers(100, 100, 50, torch.device("cuda"), None) == 1


@pytest.mark.parametrize(("budget", "said"), [(None, "1.0 MB are free"), (500_000, "0.5 MB may be used")])
def test_what_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch, budget: int | None, said: str) -> None:
    monkeypatch.setattr(memory_module, "available_memory", lambda: 1_000_000)
    with pytest.raises(GeomoeError, match=f"needs about 1.1 MB of memory and {said}.*--tile"):
        fitting_workers(100_000, 1_000_000, 50, CPU, budget)


def test_a_budget_is_refused_before_the_model_runs(tmp_path: Path) -> None:
    write_scene(tmp_path / "src.tif", pixels(3, 20, 20, "uint8"))
    for do in (plan_upscale, upscale):
        with pytest.raises(GeomoeError, match="--memory"):
            do(tmp_path / "src.tif", tmp_path / "dst.tif", model=nearest(), scale=2, memory=10**6)
    assert left_over(tmp_path) == ["src.tif"]


def test_free_memory_is_that_of_the_container_where_it_has_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 10**7 < available_memory() < 10**14
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    monkeypatch.setattr(memory_module, "_CGROUP", tmp_path)
    assert available_memory() == 3_000_000
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 1000000\nactive_file 400000\n")
    assert available_memory() == 4_400_000, "files that the system would forget are not in the way"
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() > 10**7
