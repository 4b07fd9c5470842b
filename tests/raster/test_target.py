"""Where an output may go, and how it gets there: all at once or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from geomoe.errors import GeomoeError
from geomoe.raster import commit
from geomoe.raster.write.target import Move, Target, check_space
from tests.scenes import left_over, pixels, write_scene


def _target(path: Path) -> Target:
    target = Target(path, overwrite=True)
    target.folder.mkdir()
    return target


def _images(targets: list[Target]) -> list[Move]:
    return [target.moves[0] for target in targets]


def _refusal(path: Path, *, overwrite: bool = False) -> str:
    with pytest.raises(GeomoeError) as caught:
        Target(path, overwrite=overwrite).refuse_what_stands()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "like.tif", pixels(1, 8, 8, "uint8"))
    assert "does not exist" in _refusal(tmp_path / "no" / "out.tif")
    assert "end the output's name in .tif" in _refusal(tmp_path / "out.png")
    assert "exists already" in _refusal(source)
    (tmp_path / "folder.tif").mkdir()
    assert "is a folder" in _refusal(tmp_path / "folder.tif", overwrite=True)
    (tmp_path / "aside.tif.ovr").mkdir()
    assert "aside.tif.ovr is a folder" in _refusal(tmp_path / "aside.tif", overwrite=True)
    (tmp_path / "new.tif.msk").touch()
    assert "new.tif.msk exists" in _refusal(tmp_path / "new.tif")
    assert "too long" in _refusal(tmp_path / ("x" * 245 + ".tif"))
    assert "not a local path" in _refusal(Path("/vsimem/a.tif"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "not writable" in _refusal(tmp_path / "out.tif")


def test_space_is_checked_for_all_outputs_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_500_000_000))
    check_space([(tmp_path / "a.tif", 10**9)])
    with pytest.raises(GeomoeError, match=r"has 1\.50 GB free and the job needs about 2\.00 GB"):
        check_space([(tmp_path / "a.tif", 10**9), (tmp_path / "b.tif", 10**9)])


@contextmanager
def _failing_at(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first file that goes to ``name`` is refused by the disk."""
    real = os.replace
    failed: list[str] = []

    def refused(source: str | Path, target: str | Path) -> None:
        if Path(target).name == name and not failed:
            failed.append(name)
            raise OSError(errno.EIO, "Input/output error", str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused)
        yield


def test_commit_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = b"what stood here"
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(old)
    targets = [_target(tmp_path / name) for name in ("a.tif", "b.tif")]
    for target in targets:
        target.moves[0].part.write_bytes(b"new")
    with pytest.raises(GeomoeError, match="cannot put"), _failing_at("b.tif", monkeypatch):
        commit(_images(targets))
    assert {name: (tmp_path / name).read_bytes() for name in ("a.tif", "b.tif")} == {
        "a.tif": old,
        "b.tif": old,
    }
    assert all(target.moves[0].part.read_bytes() == b"new" for target in targets), "they wait"
    (tmp_path / "a.tif.aux.xml").write_text("statistics of the old file")
    commit(_images(targets))
    for target in targets:
        target.drop_neighbours()
        target.clean()
        target.folder.rmdir()
    assert left_over(tmp_path) == ["a.tif", "b.tif"]
    assert (tmp_path / "b.tif").read_bytes() == b"new"


def test_commit_where_files_have_one_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    targets = [_target(tmp_path / name) for name in ("a.tif", "b.tif")]
    for target in targets:
        target.path.write_bytes(b"old")
    for target in targets:
        target.moves[0].part.write_bytes(b"new")
    with pytest.raises(GeomoeError, match="cannot put"), _failing_at("b.tif", monkeypatch):
        commit(_images(targets))
    assert [target.path.read_bytes() for target in targets] == [b"old", b"old"]
    commit(_images(targets))
    assert [target.path.read_bytes() for target in targets] == [b"new", b"new"]


def test_what_an_interrupted_commit_put_in_place_is_undone_with_the_rest(tmp_path: Path) -> None:
    targets = [_target(tmp_path / name) for name in ("a.tif", "b.tif")]
    targets[0].path.write_bytes(b"new")  # in place since the first try
    targets[1].moves[0].part.write_bytes(b"new")
    targets[1].path.write_bytes(b"of somebody else")
    moves = [replace(target.moves[0], overwrite=False) for target in targets]
    with pytest.raises(GeomoeError, match="appeared"):
        commit(moves)
    assert not targets[0].path.exists()
    assert [move.part.read_bytes() for move in moves] == [b"new", b"new"]
    assert targets[1].path.read_bytes() == b"of somebody else"


def test_one_item_is_not_given_to_two_files(tmp_path: Path) -> None:
    for name in ("a.tif", "a.stac.json"):
        (tmp_path / name).write_bytes(b"")
    assert "is the item of" in _refusal(tmp_path / "a.tiff", overwrite=True)


@pytest.mark.parametrize("other", ["out.tiff", "out.TIF", "out.Tiff"])
def test_files_of_one_item_are_not_made_at_once(tmp_path: Path, other: str) -> None:
    one, two = (Target(tmp_path / name, overwrite=True) for name in ("out.tif", other))
    with one.held():
        with pytest.raises(GeomoeError, match=r"out\.tif is being made here.* has the same item"), two.held():
            pass
        assert "has the same item" in _refusal(tmp_path / other, overwrite=True)
    with two.held():
        assert "has the same item" in _refusal(tmp_path / "out.tif", overwrite=True)
    (tmp_path / other).touch()
    (tmp_path / "out.stac.json").touch()
    assert "is the item of" in _refusal(tmp_path / "out.tif", overwrite=True)


def test_the_folder_of_the_work_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        target = Target(tmp_path / "out.tif", overwrite=True)
        with target.held():
            assert target.folder.stat().st_mode & 0o777 == 0o700
        target.folder.mkdir(mode=0o777)
        with target.held():
            assert target.folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


@pytest.mark.parametrize("kind", ["link", "dangling", "hard", "folder", "pipe"])
@pytest.mark.parametrize(
    "name", ["journal", "job.json", "commit", "part.tif", "part.json", "scratch.tif", "scratch.tif.msk"]
)
def test_what_somebody_prepared_in_the_folder_of_the_work_is_refused(
    tmp_path: Path, kind: str, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    path = tmp_path / "out.tif"
    folder = tmp_path / ".out.tif.geomoe"
    folder.mkdir()
    place = folder / name
    {
        "link": lambda: place.symlink_to(precious),
        "dangling": lambda: place.symlink_to(tmp_path / "nowhere"),
        "hard": lambda: os.link(precious, place),
        "folder": place.mkdir,
        "pipe": lambda: os.mkfifo(place),
    }[kind]()
    assert f"{folder} holds {name}" in _refusal(path, overwrite=True)
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_of_the_work_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".a.tif.geomoe").symlink_to("elsewhere")
    (tmp_path / ".b.tif.geomoe").touch()
    for name in "ab":
        assert "is a symbolic link or a file" in _refusal(tmp_path / f"{name}.tif", overwrite=True)
    assert not left_over(tmp_path / "elsewhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
@pytest.mark.parametrize("name", ["", "journal", "lock"])
def test_the_folder_of_another_user_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / ".out.tif.geomoe"
    folder.mkdir()
    (folder / "journal").touch()
    (folder / "lock").touch()
    os.chown(folder / name, 12345, -1)
    said = _refusal(tmp_path / "out.tif", overwrite=True)
    assert ("made by another user (number 12345)" if not name else f"holds {name}") in said
    assert "remove" in said


def test_a_disk_that_names_another_owner_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As an NFS server does that takes root for nobody: what root makes there is nobody's.
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    target = Target(tmp_path / "out.tif", overwrite=True)
    with target.held():
        assert target.folder.is_dir()
