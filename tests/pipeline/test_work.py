"""A job that is cut off continues where it was, and nobody can tell from the result."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.lock import locked
from geomoe.pipeline import checkpoint as work_module
from geomoe.pipeline import upscale
from tests.pipeline.fakes import FakeUpscaler, nearest
from tests.pipeline.interrupted import MADE, TILES, Counting, Cut, cut_job, run_job, same_files
from tests.scenes import left_over, pixels, write_scene


@pytest.mark.parametrize("tiles", [1, 4, 8, 9])
def test_the_same_call_goes_on(folder: Path, tiles: int) -> None:
    kept = cut_job(folder, tiles)
    assert left_over(folder / "cut") == [".experts.tif.geomoe", ".out.tif.geomoe"]
    assert {"job.json", "journal", "scratch.tif"} <= {path.name for path in kept.iterdir()}
    heard = Counting(TILES - tiles + 1)
    report = run_job(folder / "src.tif", folder / "cut", heard)
    assert heard.told == (TILES, tiles, f"resumes: {tiles} of {TILES} tiles were done")
    assert (report.resumed, report.skipped) == (tiles, 1)
    assert same_files(folder)


def test_in_any_order_and_many_times(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for done in range(1, TILES):
        with pytest.raises(Cut):
            run_job(folder / "src.tif", folder / "cut", Counting(1), order=rng.permutation(TILES).tolist())
        assert len(_numbers(folder)) == done
    run_job(folder / "src.tif", folder / "cut", Counting(2), order=rng.permutation(TILES).tolist())
    assert same_files(folder)


def _numbers(folder: Path) -> set[str]:
    journal = folder / "cut" / ".out.tif.geomoe" / "journal"
    return {line.split()[0] for line in journal.read_text().splitlines() if line}


def _other_weights() -> FakeUpscaler:
    other = nearest()
    return FakeUpscaler(other.model, other.contract, hash="ffff")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": _other_weights()}, "another weights"),
        ({"tile": 32}, "another tile"),
        ({"bands": "1,2"}, "another bands, radiometry"),
    ],
)
def test_another_job_starts_over_and_says_so(folder: Path, change: dict[str, object], what: str) -> None:
    cut_job(folder, 4)
    heard = Counting(TILES + 1)
    report = run_job(folder / "src.tif", folder / "cut", heard, **change)
    assert heard.told[1:] == (0, f"starts over: what was begun here before is {what}")
    assert report.resumed == 0
    made = [*MADE[:2], report.model_item.name, *MADE[3:]]
    assert left_over(folder / "cut") == made


def test_a_job_with_other_maps_leaves_nothing_of_the_first(folder: Path) -> None:
    cut_job(folder, 4)
    heard, cut = Counting(TILES + 1), folder / "cut"
    upscale(
        folder / "src.tif",
        cut / "out.tif",
        model=nearest(),
        scale=2,
        consistency=cut / "c.tif",
        progress=heard,
    )
    assert heard.told[2] == "starts over: what was begun here before is another layers, outputs"
    names = left_over(cut)
    assert [name for name in names if not name.startswith("fake.")] == [
        "c.stac.json", "c.tif", "out.stac.json", "out.tif",
    ]  # fmt: skip


def test_a_changed_scene_starts_over(folder: Path) -> None:
    cut_job(folder, 4)
    data = pixels(3, 40, 40, "float32", seed=1)
    write_scene(folder / "src.tif", data)
    heard = Counting(TILES + 1)
    run_job(folder / "src.tif", folder / "cut", heard)
    assert "another radiometry, scene" in heard.told[2]
    fresh = folder / "fresh"
    fresh.mkdir()
    run_job(folder / "src.tif", fresh, Counting(TILES + 1))
    assert (fresh / "out.tif").read_bytes() == (folder / "cut" / "out.tif").read_bytes()


def _forge(kept: Path) -> None:
    """Lines of a journal that no process of ours wrote, and one that was cut."""
    lines = (kept / "journal").read_text()
    forged = [
        "nonsense",
        "99 1 0 0 0 0",
        "-1 1 0 0 0 0",
        "3 1 0 0",
        "8 1 " + "0" * 40,
        "7 1 1 1 1 1",
        "6 1 12",
    ]
    (kept / "journal").write_text(lines + "\n".join(forged))


def _spoil(kept: Path) -> None:
    """A pixel of the second tile, as a power cut may leave it."""
    with (kept / "scratch.tif").open("r+b") as file:
        file.seek(-(2 * 256**2 - 40) * 4, 2)
        file.write(b"\1\2\3\4")


@pytest.mark.parametrize(("harm", "left"), [(_forge, 4), (_spoil, 3)])
def test_the_journal_is_not_believed_without_its_pixels(folder: Path, harm: object, left: int) -> None:
    kept = cut_job(folder, 4)
    harm(kept)  # type: ignore[operator]
    heard = Counting(TILES + 1)
    run_job(folder / "src.tif", folder / "cut", heard)
    assert heard.told[1] == left
    assert same_files(folder)


@pytest.mark.parametrize("name", ["scratch.tif", "journal"])
def test_what_cannot_be_used_starts_over(folder: Path, name: str) -> None:
    kept = cut_job(folder, 4)
    (kept / name).unlink()
    heard = Counting(TILES + 1)
    run_job(folder / "src.tif", folder / "cut", heard)
    assert heard.told[2] == "starts over: what was begun here before is damaged"
    assert same_files(folder)


def test_cut_off_before_the_first_tile_leaves_nothing(folder: Path) -> None:
    class Sudden(Counting):
        def start(self, total: int, done: int, note: str) -> None:
            raise Cut

    with pytest.raises(Cut):
        run_job(folder / "src.tif", folder / "cut", Sudden())
    assert left_over(folder / "cut") == []


def test_an_error_keeps_what_is_done_too(folder: Path) -> None:
    """A disk that was full, or a scene that could not be read for a moment, must not cost a night."""
    broken = nearest()
    calls: list[int] = []

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) > 4:
            raise GeomoeError("the disk is gone")

    broken.model.register_forward_hook(fail)
    with pytest.raises(GeomoeError, match="the disk is gone") as caught:
        run_job(folder / "src.tif", folder / "cut", Counting(), model=broken)
    assert "tiles are kept in" in caught.value.__notes__[0]
    heard = Counting(TILES)
    run_job(folder / "src.tif", folder / "cut", heard)
    assert heard.told[1] > 0
    assert same_files(folder)


def test_a_refusal_does_not_cost_what_is_done(folder: Path) -> None:
    (folder / "cut" / "out.tif").write_text("old")
    cut_job(folder, 4, overwrite=True)
    with pytest.raises(GeomoeError, match="exists already"):
        run_job(folder / "src.tif", folder / "cut", Counting())
    heard = Counting(TILES)
    run_job(folder / "src.tif", folder / "cut", heard, overwrite=True)
    assert heard.told[1] == 4
    assert same_files(folder)


def test_interrupted_before_anything_is_believed_costs_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_job(folder, 4)

    def cut(*_: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(work_module.Work, "_take_over", cut)
        with pytest.raises(Cut):
            run_job(folder / "src.tif", folder / "cut", Counting())
    heard = Counting(TILES)
    run_job(folder / "src.tif", folder / "cut", heard)
    assert heard.told[1] == 4


def test_a_listener_whose_terminal_is_gone_does_not_stop_the_work(folder: Path) -> None:
    class Gone(Counting):
        def start(self, total: int, done: int, note: str) -> None:
            raise BrokenPipeError

        def advance(self) -> None:
            raise OSError(5, "Input/output error")

        def close(self) -> None:
            raise OSError(5, "Input/output error")

    run_job(folder / "src.tif", folder / "cut", Gone())
    assert same_files(folder)


def test_two_processes_do_not_write_one_file(folder: Path) -> None:
    with (
        locked(folder / "cut" / ".out.tif.geomoe", "busy"),
        pytest.raises(GeomoeError, match=r"another process is writing .*out\.tif"),
    ):
        run_job(folder / "src.tif", folder / "cut", Counting())
    run_job(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    assert same_files(folder)


def test_the_number_of_threads_leaves_no_trace(tmp_path: Path) -> None:
    """Sums split over two threads may be rounded otherwise than over one: the model always has one."""
    write_scene(tmp_path / "src.tif", pixels(3, 40, 40, "float32"))
    seen: list[tuple[int, int]] = []
    model = nearest()
    model.model.register_forward_hook(
        lambda *_: seen.append((torch.get_num_threads(), threading.get_ident()))
    )
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        seen.clear()
        try:
            upscale(tmp_path / "src.tif", tmp_path / f"{threads}.tif", scale=2, model=model)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        assert {count for count, _ in seen} == {1}
        assert 1 <= len({thread for _, thread in seen}) <= threads
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "3.tif").read_bytes()


def test_the_job_is_described_for_people(folder: Path) -> None:
    job = json.loads((cut_job(folder, 1) / "job.json").read_text())
    assert job["weights"] == "0123abcd"
    assert [Path(path).name for path in job["outputs"]] == ["out.tif", "experts.tif"]
    assert len(job["scene"]) == 64
