"""One process at a time, on disks with locks and without."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import lock_descriptor

from geomoe import lock
from geomoe.errors import GeomoeError
from geomoe.lock import BusyError, is_held, locked


@pytest.fixture(params=[None, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Locks work, or the file system says this instead."""
    if request.param is not None:

        def flock(handle: int, operation: int) -> None:
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(fcntl, "flock", flock)
    return request.param  # type: ignore[no-any-return]


@pytest.mark.usefixtures("disk")
def test_one_holds_it_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    assert not is_held(folder)
    with locked(folder, "busy"):
        assert is_held(folder)
        with pytest.raises(BusyError, match=r"^busy"), locked(folder, "busy"):
            pass
        assert is_held(folder), "whoever did not get it does not take it away"
    assert not folder.exists()
    with locked(folder, "busy"):
        (folder / "kept").touch()
    assert {path.name for path in folder.iterdir()} == {"kept", "lock"}
    assert not is_held(folder)


@pytest.mark.parametrize("comes_another", [False, True])
def test_a_lock_that_its_holder_removed_meanwhile_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_another: bool
) -> None:
    folder = tmp_path / "work"
    opened: list[int] = []

    def late(handle: int, *, blocking: bool) -> bool:
        if not opened:  # whoever held it ends just here: between the file's opening and its lock
            (folder / "lock").unlink()
            folder.rmdir()
        opened.append(handle)
        if comes_another and len(opened) == 1:
            folder.mkdir()
            (folder / "lock").touch()
        return lock_descriptor(handle, blocking=blocking)

    monkeypatch.setattr("geomoe.lock.lock_descriptor", late)
    with locked(folder, "busy"):
        assert len(opened) == 2
        assert is_held(folder)
    assert not folder.exists()


def test_an_error_of_the_disk_is_not_taken_for_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(GeomoeError, match="cannot be locked: Input/output error"),
        locked(tmp_path / "a", "b"),
    ):
        pass


_WITHOUT_LOCKS = """
import errno, fcntl, os, sys
from pathlib import Path
def flock(handle, operation):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
from geomoe.lock import BusyError, locked
try:
    with locked(Path(sys.argv[1]), "busy"):
        if sys.argv[2] == "die":
            os._exit(9)
        print("held", flush=True)
        input()
except BusyError as error:
    print(error)
"""


def _process(folder: Path, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WITHOUT_LOCKS, folder, what],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_without_locks_a_process_is_kept_out_until_the_other_ends(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with _process(folder, "hold") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        # Where locks do work here, the other machine's mark is heeded.
        with pytest.raises(BusyError, match=r"busy; if none is, remove .*lock\.held"), locked(folder, "busy"):
            pass
        first.communicate("\n")
    assert not folder.exists()


def test_without_locks_what_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with _process(folder, "die") as killed:
        assert killed.wait() == 9
    assert (folder / "lock.held").exists()
    with _process(folder, "hold") as other:
        assert other.communicate("\n")[0] == "held\n"
    assert not folder.exists()


def test_what_was_killed_before_it_wrote_its_name_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "lock.held").touch()
    with _process(folder, "hold") as other:
        assert other.communicate("\n")[0] == "held\n"
    assert not folder.exists()


@pytest.mark.parametrize("late", [False, True])
def test_whoever_writes_its_name_late_holds_it(tmp_path: Path, late: bool) -> None:
    """Another looks between the making of its file and the writing of its name, and ends the line then."""
    folder, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    folder.mkdir()
    marker = folder / "lock.held"
    marker.touch()
    with _process(elsewhere, "hold") as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        name = (elsewhere / "lock.held").read_bytes()
        if not late:
            marker.write_bytes(name + b"\n")
        with _process(folder, "hold") as other:
            if late:
                while not marker.stat().st_size:
                    time.sleep(0.01)
                with marker.open("r+b") as file:  # from the start, as filelock does
                    file.write(name)
            assert "busy" in other.communicate("\n")[0]
        assert marker.read_bytes() == (name if late else name + b"\n")
        holder.communicate("\n")


def test_what_is_written_between_two_looks_stays_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, real = tmp_path / "lock.held", os.open
    marker.touch()

    def late(*given: object) -> int:
        with marker.open("ab") as file:
            file.write(b"12\nhost\n")
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", late)
    assert lock._end_nameless(marker)
    assert marker.read_bytes() == b"12\nhost\n\n"


def test_what_is_no_empty_file_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, folder, pipe, link = (tmp_path / name for name in ("named", "folder", "pipe", "link"))
    named.write_bytes(b"1")
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch()
    assert not any(map(lock._end_nameless, (named, folder, pipe, link)))
    assert (named.read_bytes(), (tmp_path / "elsewhere").read_bytes()) == (b"1", b"")
    assert lock._end_nameless(tmp_path / "nothing")

    def refused(*given: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    assert not lock._end_nameless(tmp_path / "elsewhere"), "of another user"
