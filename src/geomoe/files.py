"""Writing a file in one step, so that whoever reads finds one that is whole, and over none that is needed."""

from __future__ import annotations

import csv
import errno
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from geomoe.errors import GeomoeError

__all__ = [
    "NO_LINKS",
    "SMALL",
    "atomic_write",
    "csv_text",
    "new_folder",
    "overlap",
    "places",
    "read_small",
    "sync_folder",
    "writable_place",
    "write_csv",
    "write_text",
]

NO_LINKS: int = getattr(os, "O_NOFOLLOW", 0)
"""For `os.open`: refuse a symbolic link of that name. Not on Windows."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINKS | getattr(os, "O_BINARY", 0)


SMALL: int = 8 * 2**20
"""Bytes that a file may have which is read whole, unless more is said: a hundred times the usual."""


def read_small(path: str | os.PathLike[str], most: int = SMALL) -> bytes:
    """All bytes of a small file: a manifest, a card, metadata, a configuration.

    Args:
        path: of a regular file; a pipe or a device may never come to an end.
        most: bytes that it may have.

    Raises:
        GeomoeError: if it is none, is larger, or cannot be read.
    """
    try:
        # A pipe that nobody writes to would not even open.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise GeomoeError(f"{os.fspath(path)} is not a regular file; save what it holds in one")
            content = file.read(most + 1)
    except (OSError, ValueError) as error:  # the second for a name that no file can have
        what = getattr(error, "strerror", None) or error
        raise GeomoeError(f"{os.fspath(path)} cannot be read: {what}; check the path") from error
    if len(content) > most:
        size = f"{most >> 20} MiB" if most >= 2**20 else f"{most} bytes"
        raise GeomoeError(f"{os.fspath(path)} is larger than {size}; check the file")
    return content


@contextmanager
def atomic_write(path: str | os.PathLike[str], folder: Path | None = None) -> Iterator[BinaryIO]:
    """A new file, which takes the place of ``path`` when the block ends, and not before it is on the disk.

    It is made under a name that nobody can have foreseen, and never through a link: a symbolic link at
    ``path`` is replaced by the file, and what it names is left alone. The file has the permissions of the one
    that it replaces, or those that the umask gives. After an error, in the block or later, what stood at
    ``path`` is there still and nothing else is left. A process that is killed leaves a file
    ``.NAME.XXXXXXXX.part`` at most.

    Args:
        path: of the file.
        folder: on the same file system, where the file is made; that of ``path`` if ``None``.

    Raises:
        GeomoeError: if it cannot be written, the existing one is write-protected, or something else
            than a file is there.

    Example:
        >>> with atomic_write("scores.json") as file:  # doctest: +SKIP
        ...     file.write(b"{}")
    """
    place = Path(path)
    part = (folder or place.parent) / f".{place.name[:40]}.{secrets.token_hex(4)}.part"
    try:
        mode = _permissions(place)
        handle = os.open(part, _NEW, 0o666 if mode is None else 0o600)
        try:
            with open(handle, "wb") as file:
                if mode is not None:
                    part.chmod(mode)
                yield file
                file.flush()
                os.fsync(handle)
            os.replace(part, place)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
        sync_folder(place.parent)
    except OSError as error:
        what = f"{place} cannot be written: {error.strerror or error}"
        raise GeomoeError(f"{what}; it is as it was, free some space or choose another place") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the name ``folder`` when the block ends: it is there when all is.

    Raises:
        GeomoeError: something of that name is there already, or it cannot be written; nothing is left then.
    """
    if folder.exists():
        raise GeomoeError(f"{folder} is there already; give a new folder")
    part = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.part"
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(folder)
    except OSError as error:
        raise GeomoeError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in one step, in UTF-8; raises as `atomic_write`.

    A file name in it that is no text must not cost the file: its odd bytes are written as escapes.
    """
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows, the first of which is the header, as CSV in one step; raises as `atomic_write`."""
    write_text(path, csv_text(rows))


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def writable_place(path: str | os.PathLike[str]) -> Path:
    """Where a file of that name will stand, behind symbolic links: before anything is computed for it.

    Raises:
        GeomoeError: no local path, a folder that is not there or may not be written to, or a path of one.
    """
    text = os.fspath(path)
    if "\0" in text or text.startswith("/vsi") or "://" in text:
        raise GeomoeError(f"{text!r} is not a local path; write to a local file and upload it afterwards")
    place = Path(os.path.realpath(text))
    folder = place.parent
    if not folder.is_dir():
        raise GeomoeError(f"folder {folder} does not exist; create it first (mkdir -p {folder})")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise GeomoeError(f"folder {folder} is not writable; choose another or change its permissions")
    if place.is_dir():
        raise GeomoeError(f"{place} is a folder; give the name of a file to write")
    return place


def overlap(writes: Iterable[Path], reads: Iterable[Path]) -> tuple[Path, Path] | None:
    """What a run would write that it also reads, and as what it reads it; ``None`` if there is nothing.

    Files are the same by device and number, whatever their names are. Of a folder, written or read, all that
    is in it counts.
    """
    reads = list(reads)
    read = {places(path)[0]: path for path in reversed(reads)}
    written = {}
    for path in writes:
        around = places(path)
        written[around[0]] = path
        if found := next((place for place in around if place in read), None):
            return path, read[found]
    for path in reads:
        if found := next((place for place in places(path) if place in written), None):
            return written[found], path
    return None


def places(path: str | os.PathLike[str]) -> list[tuple[object, ...]]:
    """What tells a file from all others, and the folders that it is in, from the inside.

    Of a file that is not there yet, by its folder and name, these folders are left out.
    """
    try:
        real = Path(os.path.realpath(path))
        with suppress(OSError):
            return [_number(place) for place in (real, *real.parents)]
        return [(*_number(real.parent), real.name)]
    except (OSError, ValueError):  # the second for a name that no file can have
        return [(os.path.abspath(path),)]


def _number(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _permissions(place: Path) -> int | None:
    """Of the file at a place; ``None`` where there is none. A device or a pipe must not be replaced."""
    try:
        found = place.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "what is there is not a file")
    if place.is_symlink():
        return None
    if not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, "the existing file is write-protected")
    return stat.S_IMODE(found.st_mode) & 0o777


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder: without it a power cut can undo a rename."""
    with suppress(OSError):  # some file systems do not allow it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
