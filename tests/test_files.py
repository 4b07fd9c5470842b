"""A file is written whole, through no link, or not at all."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geomoe.errors import GeomoeError
from geomoe.evaluation.benchmark import read_benchmark
from geomoe.evaluation.benchmark.result import read_result
from geomoe.files import atomic_write, overlap, read_small, write_csv, write_text
from geomoe.models import read_card
from geomoe.pipeline import read_manifest
from geomoe.raster import open_scene
from geomoe.raster.stac.item import read_item
from geomoe.tasks.fit import fit


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_sees_a_file_that_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_the_content_is_on_the_disk_before_the_name_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        found = os.fstat(handle)
        done.append("folder" if stat.S_ISDIR(found.st_mode) else f"file of {found.st_size}")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    _write(tmp_path / "a", b"12345")
    assert done == ["file of 5", "replace", "folder"]


@pytest.mark.parametrize("step", ["block", "fsync", "replace", "write"])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if step in ("fsync", "replace"):
        monkeypatch.setattr(os, step, fails)

    def write() -> None:
        with atomic_write(path) as file:
            file.write(b"new")
            if step == "write":
                fails()
            if step == "block":
                raise KeyError("stopped")

    with pytest.raises((GeomoeError, KeyError), match=r"a cannot be written: No space left|stopped"):
        write()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_is_replaced_and_what_it_names_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    for name in ("link", "dangling"):
        (tmp_path / name).symlink_to("precious" if name == "link" else "nowhere")
        _write(tmp_path / name, b"new")
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"new"
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()
    hard = tmp_path / "hard"
    os.link(tmp_path / "precious", hard)
    _write(hard, b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_permissions_are_those_of_the_old_file_or_of_the_umask(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    old.chmod(0o640)
    before = os.umask(0o027)
    try:
        _write(old, b"x")
        assert _mode(old) == 0o640
        old.chmod(0o600)
        _write(old, b"x")
        assert _mode(old) == 0o600
        _write(new, b"x")
        assert _mode(new) == 0o640
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(GeomoeError, match="write-protected"):
        _write(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_folder_a_pipe_and_a_device_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to(os.devnull)
    for name in ("folder", "pipe", "device"):
        with pytest.raises(GeomoeError, match="what is there is not a file"):
            _write(tmp_path / name, b"new")
    assert (tmp_path / "device").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["device", "folder", "pipe"]


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    for name in ("x" * 255, "\N{DEVANAGARI LETTER KA}" * 85):
        _write(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"


def test_writers_of_one_file_leave_one_of_their_files_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: _write(path, bytes([i]) * 100_000), range(40)))
    found = path.read_bytes()
    assert len(found) == 100_000
    assert len({*found}) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_name_that_is_no_text_does_not_cost_the_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "b\udcff\n")
    assert (tmp_path / "a.txt").read_bytes() == b"b\\udcff\n"
    write_csv(tmp_path / "a.csv", [["src"], ["b\udcff,c"]])
    assert (tmp_path / "a.csv").read_bytes() == b'src\r\n"b\\udcff,c"\r\n'


def test_a_file_is_the_same_by_whatever_name(tmp_path: Path) -> None:
    read, other = tmp_path / "read", tmp_path / "other"
    read.touch()
    other.touch()
    (tmp_path / "soft").symlink_to(read)
    os.link(read, tmp_path / "hard")
    (tmp_path / "way").symlink_to(tmp_path)
    for name in ("read", "soft", "hard", "way/read", "way/hard"):
        assert overlap([other, tmp_path / name], [other.with_name("none"), read]) == (tmp_path / name, read)
    assert overlap([other], [read]) is None


def test_files_that_are_not_there_yet_are_the_same_by_folder_and_name(tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    for name in ("new", "way/new", "dangling"):
        assert overlap([tmp_path / name], [tmp_path / "new"])
    assert overlap([tmp_path / "none" / "new"], [tmp_path / "new"]) is None
    assert overlap([Path("a\0b")], [tmp_path / "new"]) is None


def test_of_a_folder_all_that_is_there_counts(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "there").touch()
    (tmp_path / "link").symlink_to(folder / "in" / "there")
    assert overlap([tmp_path / "link"], [folder]) == (tmp_path / "link", folder)
    assert overlap([folder / "in" / "new"], [folder]) is None, "nothing is lost"
    assert overlap([folder], [tmp_path / "link"]) == (folder, tmp_path / "link")


def test_a_small_file_is_regular_and_small(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_small(tmp_path / "a") == read_small(tmp_path / "a", 5) == b"12345"
    with pytest.raises(GeomoeError, match="larger than 4 bytes"):
        read_small(tmp_path / "a", 4)
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: who opens it waits for ever
    (tmp_path / "link").symlink_to("/dev/zero")
    for place in (tmp_path / "pipe", tmp_path / "link", "/dev/zero", "/dev/null"):
        with pytest.raises(GeomoeError, match="not a regular file"):
            read_small(place)
    for place in (tmp_path, tmp_path / "none", "a\0"):
        with pytest.raises(GeomoeError, match="cannot be read"):
            read_small(place)


def _safe(place: Path) -> object:
    return open_scene(place.parent).__enter__()


READERS = {
    "manifest.csv": read_manifest,
    "collection.json": read_manifest,
    "item.json": lambda place: open_scene(place).__enter__(),
    "MTD_MSIL2A.xml": _safe,
    "job.yaml": read_benchmark,
    "result.json": read_result,
    "config.yaml": lambda place: fit(["--config", str(place)]),
    "other.yaml": lambda place: fit([f"--config={place}"]),
    "a.stac.json": read_item,
    "w.safetensors": read_card,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_whatever_is_read_whole_is_a_regular_file(tmp_path: Path, name: str, kind: str) -> None:
    place = tmp_path / name
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    else:
        place.mkdir()
    with pytest.raises(GeomoeError) as raised:
        READERS[name](place)
    assert "\n" not in str(raised.value)
