"""A job that is cut off goes on where it was, and nobody can tell from the result."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.lock import locked
from geomoe.pipeline import UpscaleReport, upscale
from geomoe.pipeline import checkpoint as work_module
from geomoe.raster.target import Move, Target
from tests.pipeline.fakes import FakeUpscaler, nearest
from tests.scenes import left_over, pixels, write_scene

TILES = 9
MADE = ["experts.stac.json", "experts.tif", "fake.0123abcd.stac.json", "out.stac.json", "out.tif"]


class Cut(BaseException):
    """As an interruption: no error of the job's."""


class Counting:
    """Lets so many tiles be done, and keeps what it was told."""

    def __init__(self, tiles: int = TILES) -> None:
        self.left = tiles
        self.told: tuple[int, int, str] = (0, 0, "")

    def start(self, total: int, done: int, note: str) -> None:
        self.told = (total, done, note)

    def advance(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cut

    def close(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scene with a hole in it, and the outputs of a job on it that was left alone."""
    keep = np.random.default_rng(1).random((40, 40)) > 0.2
    keep[:16, :16] = False
    write_scene(tmp_path / "src.tif", np.where(keep, pixels(3, 40, 40, "float32"), np.float32(np.nan)))
    (tmp_path / "whole").mkdir()
    _run(tmp_path / "src.tif", tmp_path / "whole", Counting(TILES + 1))
    (tmp_path / "cut").mkdir()
    return tmp_path


def _run(src: Path, out: Path, progress: Counting, **options: object) -> UpscaleReport:
    given: dict[str, object] = {"model": nearest(), "scale": 2, "experts": out / "experts.tif", **options}
    return upscale(src, out / "out.tif", progress=progress, **given)


def _cut(folder: Path, tiles: int, **options: object) -> Path:
    with pytest.raises(Cut) as caught:
        _run(folder / "src.tif", folder / "cut", Counting(tiles), **options)
    kept = folder / "cut" / ".out.tif.geomoe"
    assert caught.value.__notes__ == [
        f"{tiles} of {TILES} tiles are kept in {kept}; the same command goes on"
    ]
    return kept


def _same(folder: Path) -> bool:
    assert left_over(folder / "cut") == MADE
    cut, whole = folder / "cut", folder / "whole"
    return all((cut / name).read_bytes() == (whole / name).read_bytes() for name in MADE)


@pytest.mark.parametrize("tiles", [1, 4, 8, 9])
def test_the_same_call_goes_on(folder: Path, tiles: int) -> None:
    kept = _cut(folder, tiles)
    assert left_over(folder / "cut") == [".experts.tif.geomoe", ".out.tif.geomoe"]
    assert {"job.json", "journal", "scratch.tif"} <= {path.name for path in kept.iterdir()}
    heard = Counting(TILES - tiles + 1)
    report = _run(folder / "src.tif", folder / "cut", heard)
    assert heard.told == (TILES, tiles, f"goes on: {tiles} of {TILES} tiles were done")
    assert (report.resumed, report.skipped) == (tiles, 1)
    assert _same(folder)


def test_in_any_order_and_many_times(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for done in range(1, TILES):
        with pytest.raises(Cut):
            _run(folder / "src.tif", folder / "cut", Counting(1), order=rng.permutation(TILES).tolist())
        assert len(_numbers(folder)) == done
    _run(folder / "src.tif", folder / "cut", Counting(2), order=rng.permutation(TILES).tolist())
    assert _same(folder)


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
    _cut(folder, 4)
    heard = Counting(TILES + 1)
    report = _run(folder / "src.tif", folder / "cut", heard, **change)
    assert heard.told[1:] == (0, f"starts over: what was begun here before is {what}")
    assert report.resumed == 0
    made = [*MADE[:2], report.model_item.name, *MADE[3:]]
    assert left_over(folder / "cut") == made


def test_a_job_with_other_maps_leaves_nothing_of_the_first(folder: Path) -> None:
    _cut(folder, 4)
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
    _cut(folder, 4)
    data = pixels(3, 40, 40, "float32", seed=1)
    write_scene(folder / "src.tif", data)
    heard = Counting(TILES + 1)
    _run(folder / "src.tif", folder / "cut", heard)
    assert "another radiometry, scene" in heard.told[2]
    fresh = folder / "fresh"
    fresh.mkdir()
    _run(folder / "src.tif", fresh, Counting(TILES + 1))
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
    kept = _cut(folder, 4)
    harm(kept)  # type: ignore[operator]
    heard = Counting(TILES + 1)
    _run(folder / "src.tif", folder / "cut", heard)
    assert heard.told[1] == left
    assert _same(folder)


@pytest.mark.parametrize("name", ["scratch.tif", "journal"])
def test_what_cannot_be_used_starts_over(folder: Path, name: str) -> None:
    kept = _cut(folder, 4)
    (kept / name).unlink()
    heard = Counting(TILES + 1)
    _run(folder / "src.tif", folder / "cut", heard)
    assert heard.told[2] == "starts over: what was begun here before is damaged"
    assert _same(folder)


@pytest.mark.parametrize("placed", [0, 1, 2, 3, 4])
def test_cut_off_while_the_files_are_put_in_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, placed: int
) -> None:
    def some(moves: list[Move]) -> None:
        for move in moves[:placed]:
            move.part.replace(move.path)
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(work_module, "commit", some)
        with pytest.raises(Cut):
            _run(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    heard = Counting()
    _run(folder / "src.tif", folder / "cut", heard)
    assert "only had to be put in place" in heard.told[2]
    assert heard.left == TILES
    assert _same(folder)


@pytest.mark.parametrize("left", [["commit", "job.json", "lock"], ["commit", "lock"], ["lock"], []])
def test_cut_off_while_it_tidies_up(folder: Path, left: list[str]) -> None:
    """The job is done then: to give the command once more ends well, and nothing is left."""
    kept = _cut(folder, 4)
    shutil.copytree(kept, folder / "kept")
    _run(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    kept.mkdir()
    for name in left:
        shutil.copy(folder / "kept" / ("lock" if name == "commit" else name), kept / name)
    heard = Counting()
    _run(folder / "src.tif", folder / "cut", heard)
    assert heard.left == TILES
    assert _same(folder)


def test_a_job_that_is_done_is_not_done_again(folder: Path) -> None:
    """Whether a lock was left or not, another job's file is refused, and so is this one's without a lock."""
    _run(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    with pytest.raises(GeomoeError, match="exists already"):
        _run(folder / "src.tif", folder / "cut", Counting())
    (folder / "cut" / ".out.tif.geomoe").mkdir()
    with pytest.raises(GeomoeError, match="exists already"):
        _run(folder / "src.tif", folder / "cut", Counting(), tile=32)
    assert _same(folder)


def test_files_of_others_are_neither_replaced_nor_taken_for_ours(folder: Path) -> None:
    _cut(folder, 4)
    (folder / "cut" / "out.tif").write_text("something of theirs")
    with pytest.raises(GeomoeError, match=r"out\.tif exists already"):
        _run(folder / "src.tif", folder / "cut", Counting())
    assert (folder / "cut" / "out.tif").read_text() == "something of theirs"
    (folder / "cut" / "out.tif").unlink()
    shutil.rmtree(folder / "cut")
    (folder / "cut").mkdir()
    (folder / "cut" / ".out.tif.geomoe").symlink_to(folder / "whole")
    with pytest.raises(GeomoeError, match="symbolic link"):
        _run(folder / "src.tif", folder / "cut", Counting())
    assert left_over(folder / "whole") == MADE


def test_cut_off_before_the_first_tile_leaves_nothing(folder: Path) -> None:
    class Sudden(Counting):
        def start(self, total: int, done: int, note: str) -> None:
            raise Cut

    with pytest.raises(Cut):
        _run(folder / "src.tif", folder / "cut", Sudden())
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
        _run(folder / "src.tif", folder / "cut", Counting(), model=broken)
    assert "tiles are kept in" in caught.value.__notes__[0]
    heard = Counting(TILES)
    _run(folder / "src.tif", folder / "cut", heard)
    assert heard.told[1] > 0
    assert _same(folder)


def test_a_refusal_does_not_cost_what_is_done(folder: Path) -> None:
    (folder / "cut" / "out.tif").write_text("old")
    _cut(folder, 4, overwrite=True)
    with pytest.raises(GeomoeError, match="exists already"):
        _run(folder / "src.tif", folder / "cut", Counting())
    heard = Counting(TILES)
    _run(folder / "src.tif", folder / "cut", heard, overwrite=True)
    assert heard.told[1] == 4
    assert _same(folder)


def test_interrupted_before_anything_is_believed_costs_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cut(folder, 4)

    def cut(*_: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(work_module.Work, "_take_over", cut)
        with pytest.raises(Cut):
            _run(folder / "src.tif", folder / "cut", Counting())
    heard = Counting(TILES)
    _run(folder / "src.tif", folder / "cut", heard)
    assert heard.told[1] == 4


def test_a_listener_whose_terminal_is_gone_does_not_stop_the_work(folder: Path) -> None:
    class Gone(Counting):
        def start(self, total: int, done: int, note: str) -> None:
            raise BrokenPipeError

        def advance(self) -> None:
            raise OSError(5, "Input/output error")

        def close(self) -> None:
            raise OSError(5, "Input/output error")

    _run(folder / "src.tif", folder / "cut", Gone())
    assert _same(folder)


def test_an_old_file_that_was_put_aside_comes_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files have one name only, `commit` moves the old one away before the new one comes."""
    (folder / "cut" / "out.tif").write_text("old")

    def put_aside(moves: list[Move]) -> None:
        moves[0].path.replace(moves[0].backup)
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(work_module, "commit", put_aside)
        with pytest.raises(Cut):
            _run(folder / "src.tif", folder / "cut", Counting(TILES + 1), overwrite=True)
    with pytest.raises(Cut):
        _run(folder / "src.tif", folder / "cut", Counting(1), overwrite=True, tile=32)
    assert (folder / "cut" / "out.tif").read_text() == "old"


def test_a_finished_file_that_was_taken_away_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Target, "clean", lambda self: None)
        _run(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    for name in ("out.tif", "out.stac.json", "experts.tif", "experts.stac.json"):
        (folder / "cut" / name).unlink()
    _run(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    assert _same(folder)


@pytest.mark.parametrize("name", ["journal", "part.json", "commit", "job.json", "scratch.tif"])
@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_was_prepared_in_the_folder_of_the_work_is_not_written_through(
    folder: Path, name: str, kind: str
) -> None:
    kept = _cut(folder, 4)
    precious = folder / "precious"
    precious.write_bytes(b"precious")
    (kept / name).unlink(missing_ok=True)
    (kept / name).symlink_to(precious) if kind == "link" else (kept / name).mkdir()
    with pytest.raises(GeomoeError, match=f"holds {name}: a link, no file, or another's; remove "):
        _run(folder / "src.tif", folder / "cut", Counting(TILES))
    assert precious.read_bytes() == b"precious"
    assert not (folder / "cut" / "out.tif").exists()
    shutil.rmtree(kept)
    _run(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    assert _same(folder)


def test_two_processes_do_not_write_one_file(folder: Path) -> None:
    with (
        locked(folder / "cut" / ".out.tif.geomoe", "busy"),
        pytest.raises(GeomoeError, match=r"another process is writing .*out\.tif"),
    ):
        _run(folder / "src.tif", folder / "cut", Counting())
    _run(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    assert _same(folder)


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
    job = json.loads((_cut(folder, 1) / "job.json").read_text())
    assert job["weights"] == "0123abcd"
    assert [Path(path).name for path in job["outputs"]] == ["out.tif", "experts.tif"]
    assert len(job["scene"]) == 64


@pytest.mark.parametrize("placed", [1, 2, 3])
def test_cut_off_in_place_and_then_given_up_leaves_the_old_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, placed: int
) -> None:
    """An image and its item are of one job, whichever, when another job takes over and fails."""
    cut, whole = folder / "cut", folder / "whole"
    for name in MADE:
        shutil.copy(whole / name, cut / name)
    real = os.replace
    count = 0

    def some(source: str | Path, target: str | Path) -> None:
        nonlocal count
        if Path(source).name in ("part.tif", "part.json"):
            count += 1
            if count > placed:
                raise Cut
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", some)
        with pytest.raises(Cut):
            _run(folder / "src.tif", cut, Counting(TILES + 1), overwrite=True, tile=32)
    with pytest.raises(Cut):
        _run(folder / "src.tif", cut, Counting(1), overwrite=True, bands="1,2")
    assert {name: (cut / name).read_bytes() for name in MADE} == {
        name: (whole / name).read_bytes() for name in MADE
    }


def test_the_place_of_the_models_item_is_not_taken_from_others(folder: Path) -> None:
    place = folder / "cut" / MADE[2]
    place.write_text("precious")
    with pytest.raises(GeomoeError, match="and is none; move it away"):
        _run(folder / "src.tif", folder / "cut", Counting(1), overwrite=True)
    assert left_over(folder / "cut") == [MADE[2]]
    assert place.read_text() == "precious"
