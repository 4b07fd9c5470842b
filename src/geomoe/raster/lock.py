"""One process at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geomoe.errors import GeomoeError

__all__ = ["BusyError", "locked"]


class BusyError(GeomoeError):
    """Another process is at it."""


@contextmanager
def locked(folder: Path, busy: str, *, inherited: bool = False) -> Iterator[None]:
    """Hold a folder, made if it is not there; the end of the process, however it ends, lets go of it.

    On Windows nothing is locked.

    Args:
        folder: whose parent exists.
        busy: what to say where another process holds it.
        inherited: whether children that are started with ``close_fds=False`` hold it too.

    Raises:
        BusyError: with ``busy``.
        GeomoeError: a folder that cannot be made.
    """
    handle = _take(folder, busy)
    lock = folder / "lock"
    os.set_inheritable(handle, inherited)
    try:
        yield
    finally:
        with suppress(OSError):
            if os.listdir(folder) == ["lock"]:
                lock.unlink()
        os.close(handle)
        with suppress(OSError):  # not empty: what is there is kept
            folder.rmdir()


def _take(folder: Path, busy: str) -> int:
    while True:
        try:
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise GeomoeError(f"{folder} is a symbolic link; remove it")
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError as error:
            if folder.parent.is_dir():
                continue  # the one who held it removed it just now
            raise GeomoeError(f"{folder.parent} is not there any more; create it first") from error
        except OSError as error:
            raise GeomoeError(f"cannot make {folder}: {error.strerror}; choose another output") from error
        try:
            if _holds(handle, folder / "lock"):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise BusyError(busy) from None
        except OSError as error:
            os.close(handle)
            what = f"files in {folder.parent} cannot be locked: {error.strerror}"
            raise GeomoeError(f"{what}; write to another disk") from error
        os.close(handle)


def _holds(handle: int, path: Path) -> bool:
    """Lock; whether the file is still the one of that name."""
    if sys.platform == "win32":
        return True
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
