"""Where an output goes: checked before the work starts, replaced in one step when it is done."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from geomoe.errors import GeomoeError
from geomoe.files import sync_folder, writable_place
from geomoe.lock import LOCKS, locked
from geomoe.printable import printable
from geomoe.raster.read.checks import NAMES, SIDECARS, beside

__all__ = ["Move", "Target", "check_space", "commit", "in_bytes", "item_path", "roll_back", "work_folder"]

_SUFFIXES = (".tif", ".tiff")
_ENDINGS = tuple("".join(letters) for s in _SUFFIXES for letters in product(*({c, c.upper()} for c in s)))
LAST = ("job.json", "commit")
"""Files in the folder of the work by which another process knows what is to be done there."""
_SECOND_NAMES = (*LOCKS, "backup.tif", "backup.json", "backup.xml")
_MAX_NAME = 255  # bytes, of common file systems


@dataclass(frozen=True)
class Move:
    """One file on its way to its place.

    Attributes:
        part: where the finished file waits for `commit`.
        path: where it goes.
        backup: where `commit` keeps the old file until all new ones are in place.
        overwrite: whether there may be an old one.
    """

    part: Path
    path: Path
    backup: Path
    overwrite: bool


class Target:
    """A path to be written, and the hidden folder beside it where the work on it is kept.

    With the GeoTIFF goes its STAC item, ``out.stac.json`` beside ``out.tif``: there are both or neither.

    Args:
        path: of the GeoTIFF to be.
        overwrite: whether a file may stand there already.

    Raises:
        GeomoeError: if something cannot be written there.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool) -> None:
        # Through a symbolic link, so that the file it names is replaced and not the link.
        self.path = writable_place(path)
        self.overwrite = overwrite
        if self.path.suffix.lower() not in _SUFFIXES:
            raise GeomoeError(
                f"{self.path.name!r} is not a GeoTIFF by its name; end the output's name in .tif"
            )
        self.item = item_path(self.path)
        if self.item.is_dir():
            raise GeomoeError(f"{self.item} is a folder; give the name of a file to write")
        self.folder = work_folder(self.path)
        if len(os.fsencode(self.folder.name)) > _MAX_NAME:
            raise GeomoeError(f"the name {self.path.name[:40]}... is too long; choose one under 245 bytes")
        for file in self._neighbours():
            if file.is_dir():
                raise GeomoeError(f"{file} is a folder, where other tools look for a file; remove it")
        self._refuse_twin()
        if os.path.lexists(self.folder):
            _refuse_foreign(self.folder)

    @property
    def moves(self) -> tuple[Move, Move]:
        """Of the GeoTIFF and of its item."""
        return (
            Move(self.folder / "part.tif", self.path, self.folder / "backup.tif", self.overwrite),
            Move(self.folder / "part.json", self.item, self.folder / "backup.json", self.overwrite),
        )

    @property
    def names(self) -> Move:
        """Of what a map of classes has beside it: their names, for other tools."""
        place = self.path.with_name(self.path.name + NAMES)
        return Move(self.folder / "part.xml", place, self.folder / "backup.xml", self.overwrite)

    @property
    def writes(self) -> tuple[Path, ...]:
        """What is written, replaced or removed on the way, the folder of the work with all that is in it."""
        return (self.path, self.item, *self._neighbours(), self.folder)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder of the work, which is made, for this user alone, if it is not there.

        Raises:
            BusyError: if another process holds it.
            GeomoeError: if it cannot be made, or somebody else made it or put something into it.
        """
        with suppress(OSError):  # `locked` says what is wrong
            self.folder.mkdir(mode=0o700)
        busy = f"another process is writing {self.path}; wait for it, or choose another output"
        with locked(self.folder, busy):
            _refuse_foreign(self.folder)
            self._refuse_twin()
            yield

    def _refuse_twin(self) -> None:
        """Raise GeomoeError where a file has the same item, or will: its name differs in the ending alone."""
        for ending in _ENDINGS:
            twin = self.path.with_suffix(ending)
            if ending == self.path.suffix:
                continue
            there = twin.exists() and not (self.path.exists() and twin.samefile(self.path))
            if there and self.item.exists():
                raise GeomoeError(
                    f"{self.item.name} is the item of {twin}; choose another name than {self.path.name}"
                )
            work = work_folder(twin)
            if work.exists() and not (self.folder.exists() and work.samefile(self.folder)):
                raise GeomoeError(
                    f"{twin.name} is being made here, or was begun, and has the same item; choose another "
                    f"name than {self.path.name}, or remove {work} if nothing is working on it"
                )

    def refuse_what_stands(self) -> None:
        """Raise GeomoeError where a file is at the path, or speaks for one, and may not be replaced."""
        for file in () if self.overwrite else (self.path, self.item, *self._neighbours()):
            if file.exists():
                raise GeomoeError(
                    f"{file} exists already; choose another output or allow it with --overwrite"
                )
        for file in beside(self.path):
            if file not in self._neighbours():  # nor is it removed: it may be of a file of another kind
                raise GeomoeError(f"{file} would be read with {self.path.name} by other tools; move it away")

    def work_bytes(self) -> int:
        """Bytes on the disk of the work that is kept."""
        total = 0
        with suppress(OSError):
            for entry in os.scandir(self.folder):
                found = entry.stat(follow_symlinks=False)
                total += getattr(found, "st_blocks", 0) * 512
        return total

    def clean(self) -> None:
        """Remove what is in the folder but its locks; what says of which job it is goes last.

        An old file that `commit` had put aside, and for which nothing came, is put back.
        """
        for move in (*self.moves, self.names):
            with suppress(OSError):
                if move.backup.exists() and not move.path.exists():
                    os.replace(move.backup, move.path)
        with suppress(OSError):
            for name in (*set(os.listdir(self.folder)).difference(LAST, LOCKS), *LAST):
                with suppress(OSError):
                    (self.folder / name).unlink()

    def drop_neighbours(self, *, named: bool = False) -> None:
        """Remove what other tools kept beside the old file, as it is not true of the new one.

        Args:
            named: whether `names` are the new one's.
        """
        for file in self._neighbours():
            if not (named and file == self.names.path):
                file.unlink(missing_ok=True)

    def _neighbours(self) -> tuple[Path, ...]:
        return tuple(self.path.with_name(self.path.name + suffix) for suffix in SIDECARS)


def item_path(path: Path) -> Path:
    """Where the item of a raster is: ``out.stac.json`` for ``out.tif``."""
    return path.with_name(path.stem + ".stac.json")


def work_folder(path: Path) -> Path:
    """The hidden folder beside an output in which the work on it is kept."""
    return path.with_name(f".{path.name}.geomoe")


def _refuse_foreign(folder: Path) -> None:
    """Raise GeomoeError where somebody else made a folder of the work, or put something into it.

    In a folder that many may write to, a link there, or a file of another's, would be written through with
    this user's rights. What is found to be in order is closed to others, so that it stays so.
    """
    remedy = f"remove {folder}, or choose another output"
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise GeomoeError(f"{folder} is a symbolic link or a file; expected a folder; {remedy}")
        if not _is_mine(found.st_uid, folder.parent):
            raise GeomoeError(f"{folder} was made by another user (number {found.st_uid}); {remedy}")
        if found.st_mode & 0o077:
            with suppress(OSError):  # some file systems have no permissions
                folder.chmod(0o700)
        with os.scandir(folder) as entries:
            for entry in entries:
                inside = entry.stat(follow_symlinks=False)
                # A backup is a second name of the file that it is of, a lock may be one for an instant.
                second = inside.st_nlink > 1 and entry.name not in _SECOND_NAMES
                if not stat.S_ISREG(inside.st_mode) or inside.st_uid != found.st_uid or second:
                    name = printable(entry.name)
                    raise GeomoeError(f"{folder} holds {name}: a link, no file, or another's; {remedy}")
    except FileNotFoundError:
        return  # whoever held it has just ended
    except OSError as error:
        raise GeomoeError(f"{folder} cannot be read: {error.strerror}; {remedy}") from error


def _is_mine(owner: int, folder: Path) -> bool:
    """Whether an owner is who this process is in a folder: another machine's disk may name it otherwise."""
    if sys.platform == "win32" or owner == os.geteuid():  # there `os.stat` names no owner
        return True
    with tempfile.TemporaryFile(dir=folder) as made:
        return owner == os.fstat(made.fileno()).st_uid


def check_space(needs: Sequence[tuple[Path, int]]) -> None:
    """Refuse a job whose outputs do not fit on their disks.

    Args:
        needs: for each output, its path and the bytes that it still takes at its peak.

    Raises:
        GeomoeError: with what is needed and what is free.
    """
    by_disk: dict[int, tuple[Path, int]] = {}
    for path, size in needs:
        disk = path.parent.stat().st_dev
        by_disk[disk] = (path.parent, by_disk.get(disk, (path.parent, 0))[1] + size)
    for folder, size in by_disk.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise GeomoeError(
                f"{folder} has {in_bytes(free)} free and the job needs about {in_bytes(size)}; "
                "free some space or write to another disk"
            )


def in_bytes(count: int) -> str:
    """A number of bytes in words, as 1.50 GB or 12.3 MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def commit(moves: Sequence[Move]) -> None:
    """Put every finished file at its place; all of them or, if one fails, none.

    Args:
        moves: all of a job; those whose part is gone are in place since an earlier, interrupted call.

    Raises:
        GeomoeError: if a file cannot be replaced; what was there is there again, and every part waits
            for another call.
    """
    done = [move for move in moves if not move.part.exists()]
    try:
        for move in moves:
            if move in done:
                continue
            if move.path.exists():
                if not move.overwrite:
                    raise GeomoeError(f"{move.path} appeared during the work; choose another output")
                _keep(move)
            os.replace(move.part, move.path)
            done.append(move)
    except (OSError, GeomoeError) as error:
        roll_back(moves, done)
        if isinstance(error, GeomoeError):
            raise
        what = f"cannot put {error.filename} in place: {error.strerror}"
        raise GeomoeError(f"{what}; nothing was changed, check the folder") from error
    for folder in dict.fromkeys(move.path.parent for move in moves):
        sync_folder(folder)


def roll_back(moves: Sequence[Move], done: Sequence[Move]) -> None:
    """Undo a `commit` that was not finished, of which ``done`` are in place."""
    for move in done:
        with suppress(OSError):
            os.replace(move.path, move.part)
    for move in moves:
        with suppress(OSError):
            if move.backup.exists():
                os.replace(move.backup, move.path)


def _keep(move: Move) -> None:
    try:
        os.link(move.path, move.backup)
    except OSError:  # exFAT and some network file systems have no second names
        os.replace(move.path, move.backup)
