"""One process at a time."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import AcquireReturnProxy, SoftFileLock, Timeout, lock_descriptor

from geomoe.errors import GeomoeError

__all__ = ["LOCKS", "BusyError", "is_held", "locked"]

_NATIVE, _BY_NAME = "lock", "lock.held"
LOCKS = (_NATIVE, _BY_NAME)
"""Files in a folder by which it is held."""
# What file systems say that have no locks: Lustre and NFS as some are mounted, some FUSE.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


class BusyError(GeomoeError):
    """Another process is working on it."""


@contextmanager
def locked(folder: Path, busy: str, *, inherited: bool = False) -> Iterator[None]:
    """Hold a folder, made if it is not there; the end of the process, however it ends, lets go of it.

    Where the file system has no locks, a file that only one process can make says who holds it. One that was
    left by a process of this machine that has ended is taken over; one of another machine is believed.

    Args:
        folder: whose parent exists.
        busy: what to say where another process holds it.
        inherited: whether children that are started with ``close_fds=False`` hold it too; not where the file
            system has no locks.

    Raises:
        BusyError: with ``busy``.
        GeomoeError: a folder that cannot be made.
    """
    with ExitStack() as stack:
        handle = _take(folder, busy, stack)
        os.set_inheritable(handle, inherited)
        try:
            yield
        finally:
            _let_go(folder, handle, stack)


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder now; leaves it to who does."""
    if not folder.is_dir():
        return False
    try:
        with locked(folder, "busy"):
            return False
    except BusyError:
        return True
    except GeomoeError:
        return False


def _let_go(folder: Path, handle: int, by_name: ExitStack) -> None:
    lock = folder / _NATIVE
    with suppress(OSError):
        if {*os.listdir(folder)} <= {*LOCKS}:
            lock.unlink()  # while it is held: nobody else can be about to hold it
    os.close(handle)
    if sys.platform == "win32":  # which removes no file that is open, whoever has opened it
        with suppress(OSError):
            lock.unlink()
    by_name.close()
    with suppress(OSError):  # not empty: what is there is kept
        folder.rmdir()


def _take(folder: Path, busy: str, by_name: ExitStack) -> int:
    while True:
        try:
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise GeomoeError(f"{folder} is a symbolic link; remove it")
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(folder / _NATIVE, flags, 0o666)
        except FileNotFoundError as error:
            if folder.parent.is_dir():
                continue  # the one who held it removed it just now
            raise GeomoeError(f"{folder.parent} is not there any more; create it first") from error
        except OSError as error:
            raise GeomoeError(f"cannot make {folder}: {error.strerror}; choose another output") from error
        try:
            _lock(handle, folder, busy, by_name)
            if os.path.samestat(os.fstat(handle), os.stat(folder / _NATIVE)):
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        by_name.close()
        os.close(handle)  # of a file that the one who held it removed just now


def _lock(handle: int, folder: Path, busy: str, by_name: ExitStack) -> None:
    marker = folder / _BY_NAME
    try:
        if not lock_descriptor(handle, blocking=False):
            raise BusyError(busy)
        if not marker.exists():  # of a machine that sees the disk without its locks
            return
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _unlockable(folder, error) from error
    try:
        by_name.enter_context(_acquired(marker))
    except Timeout as error:
        raise BusyError(f"{busy}; if none is, remove {marker}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unlockable(folder, error) from error


def _acquired(marker: Path) -> AcquireReturnProxy[SoftFileLock]:
    """The lock by name; raises Timeout where another process holds it."""
    lock = SoftFileLock(marker, thread_local=False)
    try:
        # Long enough to see that the one who made it has ended, and to take it over.
        return lock.acquire(timeout=0.2, poll_interval=0.05)
    except Timeout:
        if not _end_nameless(marker):
            raise
    return lock.acquire(timeout=4, poll_interval=0.05)


def _end_nameless(marker: Path) -> bool:
    """Let a file without a name in it be taken over, of one who was killed before it wrote any.

    What is empty is believed for ever; what is no name, until it has not changed for two seconds. An empty
    line makes the one of the other, and leaves a name that is written just now what it is.
    """
    try:
        found = marker.lstat()
        if found.st_size or not stat.S_ISREG(found.st_mode):
            return False
        handle = os.open(marker, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return True  # let go of just now
    except PermissionError:
        return False
    try:
        os.write(handle, b"\n")
    finally:
        os.close(handle)
    return True


def _unlockable(folder: Path, error: OSError) -> GeomoeError:
    return GeomoeError(f"files in {folder.parent} cannot be locked: {error.strerror}; write to another disk")
