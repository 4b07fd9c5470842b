"""What a job is said to need, and what it may take."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil
import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.pipeline import forecast_scene, plan_scene, upscale
from geomoe.pipeline import memory as memory_module
from geomoe.pipeline.cgroup import memory_left
from geomoe.pipeline.memory import available_memory, fitting_workers
from tests.pipeline.fakes import nearest
from tests.scenes import left_over, pixels, write_scene

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_dry_run_foretells_the_disk_and_writes_nothing(tmp_path: Path, dtype: str) -> None:
    write_scene(tmp_path / "src.tif", pixels(3, 600, 500, dtype), nodata=0)
    told = forecast_scene(tmp_path / "src.tif", tmp_path / "dst.tif", model=nearest(tile=64), scale=2)
    assert left_over(tmp_path) == ["src.tif"]
    assert told.tried == 7, "a tenth of 80 tiles, of which those at the edges are smaller"
    assert told.seconds > 4
    assert told.memory_bytes > 10**8
    upscale(tmp_path / "src.tif", tmp_path / "dst.tif", model=nearest(tile=64), scale=2)
    assert told.output_bytes == pytest.approx((tmp_path / "dst.tif").stat().st_size, rel=0.2)


def test_of_a_scene_of_one_tile_that_tile_is_tried(tmp_path: Path) -> None:
    write_scene(tmp_path / "src.tif", pixels(3, 5, 7, "uint8"))
    told = forecast_scene(tmp_path / "src.tif", tmp_path / "dst.tif", model=nearest(), scale=2)
    assert (told.tried, told.plan.tiles, told.plan.workers) == (1, 1, 1)


@pytest.mark.parametrize(
    ("side", "tile"), [((128, 96), 32), ((64, 64), 64), ((200, 200), 64), ((31, 700), 64)]
)
def test_a_dry_run_does_a_tenth_of_the_job_at_most(tmp_path: Path, side: tuple[int, int], tile: int) -> None:
    """Also of 12 tiles, or of one, of which a part is done."""
    write_scene(tmp_path / "src.tif", pixels(3, *side, "uint16"))
    model = nearest(tile=tile)
    shown: list[int] = []
    model.model.register_forward_hook(
        lambda _, given, out: shown.append(given[0].shape[2] * given[0].shape[3])
    )
    upscale(tmp_path / "src.tif", tmp_path / "dst.tif", model=model, scale=2)
    whole = sum(shown)
    shown.clear()
    told = forecast_scene(tmp_path / "src.tif", tmp_path / "new.tif", model=model, scale=2)
    assert 0 < sum(shown) <= whole / 10
    assert told.tried == len(shown)


def test_tiles_without_a_valid_pixel_are_foretold_and_cost_nothing(tmp_path: Path) -> None:
    data = pixels(3, 320, 320, "uint16")
    data[:, :, 160:] = 0
    write_scene(tmp_path / "src.tif", data, nodata=0)
    write_scene(tmp_path / "full.tif", pixels(3, 320, 320, "uint16"), nodata=0)
    half, full = (
        forecast_scene(tmp_path / name, tmp_path / "dst.tif", model=nearest(tile=32), scale=2)
        for name in ("src.tif", "full.tif")
    )
    assert half.output_bytes == pytest.approx(full.output_bytes / 2, rel=0.2)


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
    for do in (plan_scene, upscale):
        with pytest.raises(GeomoeError, match="--memory"):
            do(tmp_path / "src.tif", tmp_path / "dst.tif", model=nearest(), scale=2, memory=10**6)
    assert left_over(tmp_path) == ["src.tif"]


def _group(folder: Path, limit: object, used: int, files: int, *, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if version == 1
        else ("memory.max", "memory.current")
    )
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    total = "total_" if version == 1 else ""
    (folder / "memory.stat").write_text(
        f"anon 5\n{total}inactive_file {files // 2}\n{total}active_file {files - files // 2}\n"
    )


def _process(folder: Path, cgroup: str, *mounts: str) -> Path:
    folder.mkdir()
    (folder / "cgroup").write_text(cgroup)
    (folder / "mountinfo").write_text("".join(f"32 31 0:29 {mount}\n" for mount in mounts))
    return folder


def test_memory_is_that_of_the_narrowest_group_above(tmp_path: Path) -> None:
    """As systemd and batch systems nest them: the limit is seldom at the root, or on the leaf."""
    top = tmp_path / "sys"
    _group(top / "slurm", 5_000_000, 2_000_000, 400_000, version=2)
    _group(top / "slurm/job/step", "max", 1_000_000, 0, version=2)
    (top / "slurm/job").mkdir(exist_ok=True)
    process = _process(
        tmp_path / "self", "0::/slurm/job/step\n", f"/ {tmp_path}/sys rw,nosuid - cgroup2 cgroup2 rw"
    )
    assert memory_left(process) == 3_400_000, "files that the system would forget are not in the way"
    _group(top / "slurm/job", 4_000_000, 1_500_000, 0, version=2)
    assert memory_left(process) == 2_500_000
    _group(top / "slurm/job/step", 1_000_000, 2_000_000, 0, version=2)
    assert memory_left(process) == 0


@pytest.mark.parametrize("root", ["/", "/docker/abc"])
def test_memory_is_that_of_groups_of_the_first_version(tmp_path: Path, root: str) -> None:
    mount = tmp_path / "sys/memory"
    _group(mount / ("docker/abc" if root == "/" else ""), 6_000_000, 1_000_000, 500_000, version=1)
    process = _process(
        tmp_path / "self",
        "9:name=systemd:/x\n4:cpu,memory:/docker/abc\n0::/x\n",
        f"/ {tmp_path}/sys/cpuset rw - cgroup cgroup rw,cpuset",
        f"{root} {mount} rw,relatime shared:1 - cgroup cgroup rw,memory,cpu",
    )
    assert memory_left(process) == 5_500_000


def test_memory_without_groups_is_the_machine_s(tmp_path: Path) -> None:
    assert memory_left(tmp_path) is None
    _group(tmp_path / "sys", "max", 1, 0, version=2)
    assert memory_left(_process(tmp_path / "a", "0::/\n", f"/ {tmp_path}/sys rw - cgroup2 none rw")) is None
    assert 10**7 < available_memory() < 10**14


def test_free_memory_is_what_a_group_or_a_limit_of_addresses_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "memory_left", lambda: 1234)
    assert available_memory() == 1234
    monkeypatch.undo()
    taken = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda _: (taken + 50_000_000, -1))
    assert 0 < available_memory() <= 60_000_000
