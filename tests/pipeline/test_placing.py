"""The files of a job are put in their places together, and nothing of others is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from geomoe.errors import GeomoeError
from geomoe.pipeline import checkpoint as work_module
from geomoe.raster.write.target import Move, Target
from tests.pipeline.interrupted import MADE, TILES, Counting, Cut, cut_job, run_job, same_files
from tests.scenes import left_over


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
            run_job(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    heard = Counting()
    run_job(folder / "src.tif", folder / "cut", heard)
    assert "only had to be put in place" in heard.told[2]
    assert heard.left == TILES
    assert same_files(folder)


@pytest.mark.parametrize("left", [["commit", "job.json", "lock"], ["commit", "lock"], ["lock"], []])
def test_cut_off_while_it_tidies_up(folder: Path, left: list[str]) -> None:
    """The job is done then: to give the command once more ends well, and nothing is left."""
    kept = cut_job(folder, 4)
    shutil.copytree(kept, folder / "kept")
    run_job(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    kept.mkdir()
    for name in left:
        shutil.copy(folder / "kept" / ("lock" if name == "commit" else name), kept / name)
    heard = Counting()
    run_job(folder / "src.tif", folder / "cut", heard)
    assert heard.left == TILES
    assert same_files(folder)


def test_a_job_that_is_done_is_not_done_again(folder: Path) -> None:
    """Whether a lock was left or not, another job's file is refused, and so is this one's without a lock."""
    run_job(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    with pytest.raises(GeomoeError, match="exists already"):
        run_job(folder / "src.tif", folder / "cut", Counting())
    (folder / "cut" / ".out.tif.geomoe").mkdir()
    with pytest.raises(GeomoeError, match="exists already"):
        run_job(folder / "src.tif", folder / "cut", Counting(), tile=32)
    assert same_files(folder)


def test_files_of_others_are_neither_replaced_nor_taken_for_ours(folder: Path) -> None:
    cut_job(folder, 4)
    (folder / "cut" / "out.tif").write_text("something of theirs")
    with pytest.raises(GeomoeError, match=r"out\.tif exists already"):
        run_job(folder / "src.tif", folder / "cut", Counting())
    assert (folder / "cut" / "out.tif").read_text() == "something of theirs"
    (folder / "cut" / "out.tif").unlink()
    shutil.rmtree(folder / "cut")
    (folder / "cut").mkdir()
    (folder / "cut" / ".out.tif.geomoe").symlink_to(folder / "whole")
    with pytest.raises(GeomoeError, match="symbolic link"):
        run_job(folder / "src.tif", folder / "cut", Counting())
    assert left_over(folder / "whole") == MADE


def test_an_old_file_that_was_put_aside_comes_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files have one name only, `commit` moves the old one away before the new one comes."""
    (folder / "cut" / "out.tif").write_text("old")

    def put_aside(moves: list[Move]) -> None:
        moves[0].path.replace(moves[0].backup)
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(work_module, "commit", put_aside)
        with pytest.raises(Cut):
            run_job(folder / "src.tif", folder / "cut", Counting(TILES + 1), overwrite=True)
    with pytest.raises(Cut):
        run_job(folder / "src.tif", folder / "cut", Counting(1), overwrite=True, tile=32)
    assert (folder / "cut" / "out.tif").read_text() == "old"


def test_a_finished_file_that_was_taken_away_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Target, "clean", lambda self: None)
        run_job(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    for name in ("out.tif", "out.stac.json", "experts.tif", "experts.stac.json"):
        (folder / "cut" / name).unlink()
    run_job(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    assert same_files(folder)


@pytest.mark.parametrize("name", ["journal", "part.json", "commit", "job.json", "scratch.tif"])
@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_was_prepared_in_the_folder_of_the_work_is_not_written_through(
    folder: Path, name: str, kind: str
) -> None:
    kept = cut_job(folder, 4)
    precious = folder / "precious"
    precious.write_bytes(b"precious")
    (kept / name).unlink(missing_ok=True)
    (kept / name).symlink_to(precious) if kind == "link" else (kept / name).mkdir()
    with pytest.raises(GeomoeError, match=f"holds {name}: a link, no file, or another's; remove "):
        run_job(folder / "src.tif", folder / "cut", Counting(TILES))
    assert precious.read_bytes() == b"precious"
    assert not (folder / "cut" / "out.tif").exists()
    shutil.rmtree(kept)
    run_job(folder / "src.tif", folder / "cut", Counting(TILES + 1))
    assert same_files(folder)


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
            run_job(folder / "src.tif", cut, Counting(TILES + 1), overwrite=True, tile=32)
    with pytest.raises(Cut):
        run_job(folder / "src.tif", cut, Counting(1), overwrite=True, bands="1,2")
    assert {name: (cut / name).read_bytes() for name in MADE} == {
        name: (whole / name).read_bytes() for name in MADE
    }


def test_the_place_of_the_models_item_is_not_taken_from_others(folder: Path) -> None:
    place = folder / "cut" / MADE[2]
    place.write_text("precious")
    with pytest.raises(GeomoeError, match="and is none; move it away"):
        run_job(folder / "src.tif", folder / "cut", Counting(1), overwrite=True)
    assert left_over(folder / "cut") == [MADE[2]]
    assert place.read_text() == "precious"
